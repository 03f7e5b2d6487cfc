"""The systems that the paper compares itself with, one file each; a recipe names one by its file, as `model.kind`.

Each file has the settings of its network (RECIPE) and the network (SYSTEM). Data, training, checkpoints, translation
and evaluation are those of ours.
"""
