def table(result): return ""
def failures(result): return []
