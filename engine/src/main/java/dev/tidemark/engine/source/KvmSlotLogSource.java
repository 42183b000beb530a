package dev.tidemark.engine.source;

import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.internal.Unwind;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;

/**
 * KVM's bitmap per memory slot ({@code KVM_GET_DIRTY_LOG}), which KVM answers by overwriting: a
 * scratch plane per slot takes the answer and one fused merge brings it into the log.
 *
 * <p>Two ways. <b>Plain</b>: GET reads, clears and write-protects the whole slot in one call.
 * <b>Manual protect</b> ({@code KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2}): GET only reads; CLEAR, with
 * exactly the bits that GET gave, clears and protects those, before any of the pages is read: in
 * {@link #sync()} all at once, before the bits reach the log; after {@link #syncUnprotected()} some
 * {@value #CLEAR_PAGES} pages at a time, as {@link #protect} asks for them: KVM holds mmu_lock all
 * through a CLEAR, and faults that need it wait. After {@link #lastSync()} nothing is cleared.
 *
 * <p>Sees what vCPUs write through these slots, whatever the memory is made of, and nothing else:
 * the VMM marks what its own threads, its system calls, discards and file writes change, and names
 * each slot that shows a page (docs/tracking.md).
 *
 * <p>Footprint: 1 bit per page of each slot. Cost of a sync: one or two calls and one merge pass
 * per slot; of protecting, a scalar pass over the answers; no allocation. Threading: the tracker's.
 */
public final class KvmSlotLogSource implements DirtySource {
  /** What one CLEAR protects: 64 MiB, in about a millisecond. */
  private static final int CLEAR_PAGES = 16_384;

  private final KvmVm vm;
  private final KvmSlot[] slots;
  private final KvmLogging logging;
  private final boolean manual;
  private final int clearPages;
  private final Mapping[] scratch;
  private final MemorySegment[] answers;

  /** By slot: the first page from which on bits of the answer are to be cleared before a read. */
  private final long[] cleared;

  private boolean protecting;
  private boolean closed;

  /**
   * @param vm the VM, borrowed
   * @param slots its slots that can be written by the guest; none may be logged by somebody else
   * @param manual whether to use manual protect; never together with a dirty ring, which KVM would
   *     then leave without a single entry
   */
  public KvmSlotLogSource(KvmVm vm, List<KvmSlot> slots, boolean manual) {
    this(vm, slots, manual, CLEAR_PAGES);
  }

  KvmSlotLogSource(KvmVm vm, List<KvmSlot> slots, boolean manual, int clearPages) {
    this.clearPages = clearPages;
    this.vm = vm;
    this.slots = slots.toArray(KvmSlot[]::new);
    this.logging = new KvmLogging(vm, this.slots);
    this.manual = manual;
    cleared = new long[this.slots.length];
    answers = new MemorySegment[this.slots.length];
    scratch = new Mapping[this.slots.length];
    try {
      for (int i = 0; i < answers.length; i++) {
        long pages = this.slots[i].pages();
        scratch[i] = Mapping.guarded((pages + 511) / 512 * 64);
        // KVM writes whole 64-bit words, the last one too.
        answers[i] = scratch[i].segment().asSlice(0, (pages + 63) / 64 * 8);
      }
    } catch (Throwable e) {
      Unwind.closeAll(e, scratch);
      throw e;
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
      Arrays.fill(cleared, Long.MAX_VALUE);
      logging.start();
    } catch (Throwable e) {
      Unwind.attempt(e, this::stop);
      throw e;
    }
  }

  @Override
  public void sync() {
    ask(manual);
  }

  @Override
  public void lastSync() {
    ask(false);
  }

  @Override
  public void syncUnprotected() {
    ask(false);
    if (manual) {
      Arrays.fill(cleared, 0);
    }
  }

  private void ask(boolean clear) {
    if (closed) {
      // KVM would write its answer to where the scratch plane was.
      throw new ClosedException(name());
    }
    Arrays.fill(cleared, Long.MAX_VALUE);
    for (int i = 0; i < slots.length; i++) {
      KvmSlot slot = slots[i];
      MemorySegment answer = answers[i];
      vm.getDirtyLog(slot.slot(), slot.pages(), answer);
      if (clear) {
        vm.clearDirtyLog(slot.slot(), 0, slot.pages(), answer);
      }
      try (FillPlane fill = slot.log().fill()) {
        fill.countQueries(clear ? 2 : 1);
        fill.merge(answer, 0, slot.firstPage(), slot.pages());
      }
    }
  }

  @Override
  public boolean protect(RamBlockLog log, long page, long count) {
    boolean any = false;
    for (int i = 0; i < slots.length; i++) {
      KvmSlot slot = slots[i];
      if (slot.log() != log || page >= slot.firstPage() + slot.pages()) {
        continue;
      }
      long end = Math.min(page + count - slot.firstPage(), slot.pages());
      while (cleared[i] < end) {
        any |= clearMore(i);
      }
    }
    return any;
  }

  /**
   * Clears the next pages of a slot that were reported.
   *
   * @return false if there were none any more
   */
  private boolean clearMore(int index) {
    KvmSlot slot = slots[index];
    MemorySegment answer = answers[index];
    long words = answer.byteSize() >>> 3;
    long first = cleared[index] >>> 6;
    while (first < words && answer.get(JAVA_LONG, first << 3) == 0) {
      first++;
    }
    long end = first;
    for (long pages = 0; end < words && pages < clearPages; end++) {
      pages += Long.bitCount(answer.get(JAVA_LONG, end << 3));
    }
    // Before the call: where it fails, all pages count as dirty and come in the next round.
    cleared[index] = end << 6;
    if (first == end) {
      return false;
    }
    long page = first << 6;
    vm.clearDirtyLog(
        slot.slot(), page, Math.min(end << 6, slot.pages()) - page, answer, first << 3);
    try (FillPlane fill = slot.log().fill()) {
      fill.countQuery();
    }
    return true;
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
    // No call of the kernel may find a place there any more.
    Arrays.fill(cleared, Long.MAX_VALUE);
    Unwind.rethrow(Unwind.closeAll(failure, scratch));
  }
}
