package dev.tidemark.bench.cli;

/** How a KVM guest's writes are tracked; {@code auto} takes manual protect where there is one. */
enum Tracking {
  plain,
  manual,
  ring,
  auto
}
