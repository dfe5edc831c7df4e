"""stub"""
class ModelPage:
    def __init__(self, words): pass
    def build(self): pass
