package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.KvmGuest;

/** Which guest is migrated. */
enum GuestKind {
  kvm,
  process,
  auto;

  /** What {@code auto} means on this host. */
  GuestKind resolved() {
    if (this != auto) {
      return this;
    }
    return KvmGuest.missing().isEmpty() ? kvm : process;
  }
}
