"""What only "beyond the paper" uses: retrieval, regions, change, domain shift."""
