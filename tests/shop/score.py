def score(folder): return {}
