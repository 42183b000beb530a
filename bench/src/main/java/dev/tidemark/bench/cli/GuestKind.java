package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.KvmGuest;
import dev.tidemark.bench.lab.LabDevice;
import dev.tidemark.bench.lab.LabGuestDevices;

/** Which guest is migrated: who writes its memory, and so who tracks it. */
enum GuestKind {
  kvm,
  process,
  iommufd,
  dmalog,
  type1,
  auto;

  /** What {@code auto} means on this host. */
  GuestKind resolved() {
    if (this != auto) {
      return this;
    }
    return KvmGuest.missing().isEmpty() ? kvm : process;
  }

  /** Whether only devices of the kernel lab write its memory. */
  boolean isOfTheLab() {
    return this == iommufd || this == dmalog || this == type1;
  }

  /**
   * Opens the lab's device that writes its memory at the source.
   *
   * @throws IllegalArgumentException if this host has none
   */
  LabDevice device() {
    return switch (this) {
      case iommufd -> LabGuestDevices.iommufd();
      case dmalog -> LabGuestDevices.dmalog();
      case type1 -> LabGuestDevices.type1();
      case kvm, process, auto -> throw new IllegalStateException(this + " has none");
    };
  }
}
