"""
The commands for people and CI: publish, promote, roll back, list, diff, pin and prune
releases.
"""
