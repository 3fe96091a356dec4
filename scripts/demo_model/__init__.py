"""How the demo modelcell is made: a generated corpus, a tokenizer, a network and a GGUF writer."""
