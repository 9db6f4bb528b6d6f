"""Figures of papers, model zoos and leaderboards as data; each figure stands in the package once.

One file a source. The paper is "An Image is Worth 16x16 Words" (arXiv 2010.11929, version 2): its
recipes are in `recipes`, its results in `results`.
"""
