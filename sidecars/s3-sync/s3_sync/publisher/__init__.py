"""
What people and CI do: publish, roll back, pin and prune releases.
"""
