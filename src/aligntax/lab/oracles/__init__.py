"""Second opinions: brute force, enumeration, autograd and simulation. Nothing here may import what it checks."""
