"""How the storybook was trained: one file a stage, each a function that runs for a given time.

Each stage reads what it needs from a folder in the shipped layout, and writes its part back there.
"""
