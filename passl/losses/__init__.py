"""What training minimises.

Every loss takes logits ``[B, C]`` and either class indices (an integer tensor, ``[B]``) or a
distribution or set of labels (a floating-point tensor, ``[B, C]``), and returns the mean over the
batch, in fp32.  Which of the two a target is follows from its dtype, never from its shape.  A
method ``per_sample``, where there is one, returns ``[B]``: what evaluation adds up.
"""
