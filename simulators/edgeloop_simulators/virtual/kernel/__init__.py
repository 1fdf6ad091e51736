"""What every virtual world runs on: one heap of events, clocks, random streams, code that blocks
made to wait in virtual time, and the one value in which a world shows what happens in it.

Knows nothing of Edgeloop. Everything may import it; it imports nothing of the virtual world.
"""
