package dev.tidemark.ffm.kvm;

import static dev.tidemark.ffm.kvm.KvmConstants.KVM_DIRTY_GFN_F_DIRTY;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_DIRTY_GFN_F_RESET;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_DIRTY_LOG_PAGE_OFFSET;
import static dev.tidemark.ffm.kvm.KvmLayouts.KVM_DIRTY_GFN;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.LinuxException;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * A vCPU's dirty ring ({@code linux/kvm.h}, {@code struct kvm_dirty_gfn}). The kernel appends
 * written pages; {@link #harvest} takes them in the same order, without gaps; {@link
 * KvmVm#resetDirtyRings} gives their entries back to the kernel.
 *
 * <p>Threading: one thread harvests a ring at a time, and a harvest happens-before the next one:
 * the caller's duty. The vCPU may run meanwhile. Cost: no system call, no allocation.
 */
public final class KvmDirtyRing implements AutoCloseable {
  private static final long ENTRY = KVM_DIRTY_GFN.byteSize();
  private static final long SLOT = KvmLayouts.offset(KVM_DIRTY_GFN, "slot");
  private static final long OFFSET = KvmLayouts.offset(KVM_DIRTY_GFN, "offset");
  private static final VarHandle FLAGS = JAVA_INT.varHandle().withInvokeExactBehavior();

  private final Arena arena = Arena.ofShared();
  private final AtomicBoolean closed = new AtomicBoolean();
  private final MemorySegment entries;
  private final int capacity;

  /** Entries taken since the ring was mapped; its low bits are the place of the next one. */
  private long next;

  private KvmDirtyRing(Mapping mapping, int capacity) {
    this.entries = Libc.memory(mapping, arena);
    this.capacity = capacity;
  }

  /** Where a harvest puts the pages. */
  @FunctionalInterface
  public interface Sink {
    /**
     * A page was written.
     *
     * @param slot its memory slot, with the address space in the upper 16 bits
     * @param pageInSlot pages from the slot's start
     */
    void page(int slot, long pageInSlot);
  }

  /**
   * Maps the ring of a vCPU that was never harvested before.
   *
   * @param vcpu the vCPU's descriptor; not needed once mapped
   * @param bytes as given to {@code KVM_CAP_DIRTY_LOG_RING}: a power of two, at least a page
   * @throws LinuxException if the VM has no ring of that size
   */
  public static KvmDirtyRing map(Fd vcpu, long bytes) {
    long capacity = bytes / ENTRY;
    if (bytes < Pages.SIZE || Long.bitCount(bytes) != 1 || capacity > 1 << 30) {
      throw new IllegalArgumentException("a dirty ring of " + bytes + " bytes");
    }
    Mapping mapping = Mapping.shared(vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * Pages.SIZE, bytes);
    return new KvmDirtyRing(mapping, (int) capacity);
  }

  /** How many entries the ring has; the vCPU stops for a full ring some entries before that. */
  public int capacity() {
    return capacity;
  }

  /**
   * Takes every entry that the kernel has published, in its order. An entry is marked as taken only
   * when the sink has its page; so if the sink throws, that page comes again the next time.
   *
   * @return how many entries were taken, 0 to {@link #capacity()}
   * @throws ClosedException after close
   */
  public int harvest(Sink sink) {
    if (closed.get()) {
      throw new ClosedException("dirty ring");
    }
    int taken = 0;
    while (taken < capacity) {
      long entry = (next & capacity - 1) * ENTRY;
      // Acquire: the kernel stores slot and offset before it publishes the flag.
      if ((int) FLAGS.getAcquire(entries, entry) != KVM_DIRTY_GFN_F_DIRTY) {
        break;
      }
      sink.page(entries.get(JAVA_INT, entry + SLOT), entries.get(JAVA_LONG, entry + OFFSET));
      // Release: the kernel may reuse the entry once it sees this, so it was read before.
      FLAGS.setRelease(entries, entry, KVM_DIRTY_GFN_F_RESET);
      next++;
      taken++;
    }
    return taken;
  }

  /** Unmaps the ring. */
  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      arena.close();
    }
  }
}
