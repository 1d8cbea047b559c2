"""
What the documents name, and which of these names a test has seen in a real process.
"""
