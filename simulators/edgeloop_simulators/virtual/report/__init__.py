"""What a run says to programs and to people: report.json, report.html, and two runs side by side.

Reads what was recorded and changes nothing. Only the ways in may import it.
"""
