"""Evidence of random checks: e-values, and the budget of false alarms that they may spend.

It knows numbers, and neither programs nor kernels. It may use no other room.
"""
