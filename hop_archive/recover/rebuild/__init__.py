"""A catalog made anew from what the store holds: into an empty database, or one that lacks something.

Topic by topic: list and compare with the catalog (``plan``), read what it lacks and prove each document
(``evidence``), sort by place in a file (``spill``), tell generations of the topic apart (``generations``), cut into slices
(``cut``), commit (``rebuild``). Memory is bounded; a topic that is done is only listed when it is run again.
"""
