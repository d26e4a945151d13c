"""What a film's scores rest on: attention maps, what they point at, and occlusion."""
