package dev.tidemark.engine.source;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.internal.Unwind;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * KVM's bitmap per memory slot ({@code KVM_GET_DIRTY_LOG}), which KVM answers by overwriting: a
 * scratch plane takes the answer and one fused merge brings it into the log.
 *
 * <p>Two ways. <b>Plain</b>: GET reads, clears and write-protects the whole slot in one call.
 * <b>Manual protect</b> ({@code KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2}): GET only reads; CLEAR, with
 * exactly the bits that GET gave, clears and protects those. Only after CLEAR returned do the bits
 * reach the log, so no page can be read before its next write would be noticed.
 *
 * <p>Sees what vCPUs write through these slots, whatever the memory is made of, and nothing else:
 * the VMM marks what its own threads, its system calls, discards and file writes change, and names
 * each slot that shows a page (docs/tracking.md).
 *
 * <p>Footprint: 1 bit per page of the largest slot. Cost of a sync: one or two calls and one merge
 * pass per slot, no allocation. Threading: the tracker's.
 */
public final class KvmSlotLogSource implements DirtySource {
  private final KvmVm vm;
  private final KvmSlot[] slots;
  private final KvmLogging logging;
  private final boolean manual;
  private final Mapping scratch;
  private final MemorySegment[] answers;
  private boolean protecting;
  private boolean closed;

  /**
   * @param vm the VM, borrowed
   * @param slots its slots that can be written by the guest; none may be logged by somebody else
   * @param manual whether to use manual protect; never together with a dirty ring, which KVM would
   *     then leave without a single entry
   */
  public KvmSlotLogSource(KvmVm vm, List<KvmSlot> slots, boolean manual) {
    this.vm = vm;
    this.slots = slots.toArray(KvmSlot[]::new);
    this.logging = new KvmLogging(vm, this.slots);
    this.manual = manual;
    long largest = slots.stream().mapToLong(KvmSlot::pages).max().orElseThrow();
    scratch = Mapping.guarded((largest + 511) / 512 * 64);
    answers = new MemorySegment[this.slots.length];
    for (int i = 0; i < answers.length; i++) {
      // KVM writes whole 64-bit words, the last one too.
      answers[i] = scratch.segment().asSlice(0, (this.slots[i].pages() + 63) / 64 * 8);
    }
  }

  @Override
  public String name() {
    return manual ? "kvm-manual" : "kvm-plain";
  }

  @Override
  public void cover(Coverage coverage) {
    logging.cover(coverage);
  }

  @Override
  public void start() {
    try {
      if (manual) {
        int offered = vm.checkExtension(KvmConstants.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
        if ((offered & KvmConstants.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE) == 0) {
          throw new UnsupportedOperationException(
              "this kernel has no KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: use plain tracking");
        }
        vm.enableCap(
            KvmConstants.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
            offered
                & (KvmConstants.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
                    | KvmConstants.KVM_DIRTY_LOG_INITIALLY_SET));
        protecting = true;
      }
      logging.start();
    } catch (Throwable e) {
      Unwind.attempt(e, this::stop);
      throw e;
    }
  }

  @Override
  public void sync() {
    if (closed) {
      // KVM would write its answer to where the scratch plane was.
      throw new ClosedException(name());
    }
    for (int i = 0; i < slots.length; i++) {
      KvmSlot slot = slots[i];
      MemorySegment answer = answers[i];
      vm.getDirtyLog(slot.slot(), slot.pages(), answer);
      if (manual) {
        vm.clearDirtyLog(slot.slot(), 0, slot.pages(), answer);
      }
      try (FillPlane fill = slot.log().fill()) {
        fill.countQuery();
        if (manual) {
          fill.countQuery();
        }
        fill.merge(answer, 0, slot.firstPage(), slot.pages());
      }
    }
  }

  @Override
  public void markAll() {
    logging.markAll();
  }

  @Override
  public void stop() {
    Throwable failure = Unwind.attempt(null, logging::stop);
    if (protecting) {
      protecting = false;
      failure =
          Unwind.attempt(
              failure, () -> vm.enableCap(KvmConstants.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0));
    }
    Unwind.rethrow(failure);
  }

  @Override
  public void close() {
    closed = true;
    Throwable failure = Unwind.attempt(null, this::stop);
    Unwind.rethrow(Unwind.closeAll(failure, scratch));
  }
}
