"""Networks: plain `nn.Module`s, their registry, and the frozen part of VGG16."""
