"""Galleries: every filter of every layer of a network, drawn into a folder that can be continued, checked and browsed.

plan              what a gallery holds, what identifies each of its images, and what drawing them takes
costs             the operations of a step, and how many a second are done here
store             the folder: images and records that appear whole or not at all
drawing           filters to images with their records
building          from a plan to a finished folder
engines           where the work is done: this process, or
ray_engine        a Ray cluster
excitation        which of many images excite each filter most
natural_examples  the parts of those images that did, beside the synthesized ones
wiring            which filters of a layer feed which of the next
verification      everything read again
"""
