"""stub"""
class History:
    def __init__(self, words): self.words=words
    async def build(self): pass
