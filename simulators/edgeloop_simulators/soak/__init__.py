"""`make soak`: one real agent through a thousand versions and a million inferences, weighed all
along: what grows is a bug.
"""
