package dev.tidemark.engine.source;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Unwind;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmVm;

/** Logging of a VM's slots, all on or all off: what the slot log and the ring have in common. */
final class KvmLogging {
  private final KvmVm vm;
  private final KvmSlot[] slots;
  private boolean on;

  KvmLogging(KvmVm vm, KvmSlot[] slots) {
    this.vm = vm;
    this.slots = slots;
  }

  /**
   * Turns logging off, where it is on, and on: only that makes KVM protect every page. What was
   * written before this returns may be in no log. If a slot refuses, logging is off for all of
   * them.
   */
  void start() {
    on = true;
    try {
      for (KvmSlot slot : slots) {
        set(slot, false);
      }
      for (KvmSlot slot : slots) {
        set(slot, true);
      }
    } catch (RuntimeException | Error e) {
      Unwind.attempt(e, this::stop);
      throw e;
    }
  }

  /**
   * Turns logging off where it is on.
   *
   * @throws RuntimeException if a slot refuses; it is off for all others then
   */
  void stop() {
    if (!on) {
      return;
    }
    on = false;
    Throwable failure = null;
    for (KvmSlot slot : slots) {
      failure = Unwind.attempt(failure, () -> set(slot, false));
    }
    Unwind.rethrow(failure);
  }

  /** Resends a slot with or without logging; KVM keeps or drops its bitmap accordingly. */
  private void set(KvmSlot slot, boolean log) {
    vm.setUserMemoryRegion(
        slot.slot(),
        log ? slot.flags() | KvmConstants.KVM_MEM_LOG_DIRTY_PAGES : slot.flags(),
        slot.guestAddress(),
        slot.pages() << Pages.SHIFT,
        slot.log().block().address() + (slot.firstPage() << Pages.SHIFT));
  }

  /** Covers what vCPUs write through the slots. */
  void cover(DirtySource.Coverage coverage) {
    for (KvmSlot slot : slots) {
      coverage.add(slot.log(), slot.firstPage(), slot.pages());
    }
  }

  /** Makes every page of every slot dirty. */
  void markAll() {
    for (KvmSlot slot : slots) {
      try (FillPlane fill = slot.log().fill()) {
        fill.set(slot.firstPage(), slot.pages());
      }
    }
  }
}
