"""The parameters of the steps: checked, preset, read from recipes, explained."""
