"""What a film's scores rest on: attention maps and occlusion."""
