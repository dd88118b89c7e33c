"""The program of one training step: values (storages) and operations of one rank, with symbolic shapes."""
