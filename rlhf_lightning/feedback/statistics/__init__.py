"""Statistics of judgements: agreement, consensus, strengths of models, biases, diligence. Arrays in, numbers out.

They know nothing of how judgements are stored, and need numpy alone. What is undefined (no pair of ratings, one
category only) is NaN; arguments of wrong shapes or values raise `ValueError`.
"""
