"""The kinds of models that kickserve can ask; `kickserve.model` says what each of them must do."""
