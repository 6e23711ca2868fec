"""Galleries: every filter of every layer of a network, drawn into a folder that can be continued, checked and browsed.

plan        what a gallery is to hold, and what identifies each of its pictures
store       the folder: pictures and records that appear whole or not at all
drawing     filters to pictures with their records
building    from a plan to a finished folder
engines     where the work is done: this process, or
onray       a Ray cluster
costs       what a plan would cost
excitation  which pictures of many excite each filter most
cutting     what a unit saw of a picture
examples    both of these, written beside the synthesized images
checking    everything read again
pages       the folder as static pages, with
drawings    their strips and charts, and
serving     a server for this machine
"""
