"""What judgements say, of the models and of the people: figures (`build`), a page (`html`), a screen (`screen`)."""
