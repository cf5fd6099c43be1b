"""`reembed audit`: are the vectors of a collection made by this model from these texts?"""
