"""A large fleet's world: the controller and shares of the devices in parts that may run in
processes of their own, with the same trace whatever their number; and a day to play in it.

Only what plays large fleets may import it.
"""
