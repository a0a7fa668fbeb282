"""First stage: skeleton clips → streams → a spiking student in PyTorch → model.pt."""
