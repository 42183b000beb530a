package dev.tidemark.ffm.kvm;

import static dev.tidemark.ffm.kvm.KvmConstants.KVM_DIRTY_GFN_F_DIRTY;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_DIRTY_GFN_F_RESET;
import static dev.tidemark.ffm.kvm.KvmConstants.KVM_DIRTY_LOG_PAGE_OFFSET;
import static dev.tidemark.ffm.kvm.KvmLayouts.KVM_DIRTY_GFN;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.Errno;
import dev.tidemark.ffm.Fd;
import dev.tidemark.ffm.Mapping;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.VarHandle;
import java.util.Locale;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * A vCPU's dirty ring ({@code linux/kvm.h}, {@code struct kvm_dirty_gfn}). The kernel appends
 * written pages; {@link #harvest} takes them in the same order, without gaps; {@link
 * KvmVm#resetDirtyRings} gives their entries back to the kernel.
 *
 * <p>Threading: one thread harvests a ring at a time, and a harvest happens-before the next one:
 * the caller's duty. The vCPU may run meanwhile. Cost: no system call, no allocation. The ring of a
 * borrowed vCPU is searched at each harvest until its first entry is found.
 */
public final class KvmDirtyRing implements AutoCloseable {
  private static final long ENTRY = KVM_DIRTY_GFN.byteSize();
  private static final long SLOT = KvmLayouts.offset(KVM_DIRTY_GFN, "slot");
  private static final long OFFSET = KvmLayouts.offset(KVM_DIRTY_GFN, "offset");
  private static final int MAP_PRIVATE = 2;
  private static final VarHandle FLAGS = JAVA_INT.varHandle().withInvokeExactBehavior();

  private final Arena arena = Arena.ofShared();
  private final AtomicBoolean closed = new AtomicBoolean();
  private final MemorySegment entries;
  private final int capacity;

  /** The low bits are the place of the next entry to take; negative where that is not known. */
  private long next;

  private KvmDirtyRing(Mapping mapping, int capacity, long next) {
    this.entries = Libc.memory(mapping, arena);
    this.capacity = capacity;
    this.next = next;
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
   * Maps a vCPU's ring.
   *
   * @param next where to go on: {@link #next()} of the mapping before; 0 if there was none;
   *     negative if that is not known
   */
  static KvmDirtyRing map(Fd vcpu, long bytes, long next) {
    long capacity = bytes / ENTRY;
    if (bytes < Pages.SIZE || Long.bitCount(bytes) != 1 || capacity > 1 << 30) {
      throw new IllegalArgumentException("a dirty ring of " + bytes + " bytes");
    }
    if (!isRing(vcpu, bytes - Pages.SIZE) || isRing(vcpu, bytes)) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "%d bytes for the dirty ring of %s, which %s: map as many as were enabled",
              bytes,
              vcpu,
              enabled(vcpu)));
    }
    Mapping mapping = Mapping.shared(vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * Pages.SIZE, bytes);
    return new KvmDirtyRing(mapping, (int) capacity, next);
  }

  private static String enabled(Fd vcpu) {
    long bytes = 0;
    for (long size = Pages.SIZE; isRing(vcpu, size - Pages.SIZE); size *= 2) {
      bytes = size;
    }
    return bytes == 0 ? "is not enabled" : "has " + bytes;
  }

  /**
   * Whether a page of a vCPU's file is one of its ring's. KVM maps any page there, with SIGBUS for
   * an access to one that has nothing behind it; but it refuses private mappings of a ring alone.
   */
  private static boolean isRing(Fd vcpu, long offset) {
    int number = vcpu.acquire();
    try {
      long at = KVM_DIRTY_LOG_PAGE_OFFSET * Pages.SIZE + offset;
      long address = Libc.mmap(0, Pages.SIZE, 0, MAP_PRIVATE, number, at);
      if (address == -Errno.EINVAL) {
        return true;
      }
      Libc.munmap(Libc.check(address, "mmap(" + vcpu + ", its dirty ring)"), Pages.SIZE);
      return false;
    } finally {
      vcpu.release();
    }
  }

  /** Where the next mapping of this ring goes on; negative if that is not known. */
  long next() {
    return next;
  }

  boolean isClosed() {
    return closed.get();
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
    if (next < 0) {
      next = find();
      if (next < 0) {
        return 0;
      }
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

  /**
   * The first entry to take, or -1 if there is none. All of these are consecutive, and never the
   * whole ring, because the vCPU stops some entries before that.
   */
  private long find() {
    for (int i = 0; i < capacity; i++) {
      if (isDirty(i)) {
        int first = i;
        while (isDirty(first - 1) && first > i - capacity) {
          first--;
        }
        return first & capacity - 1;
      }
    }
    return -1;
  }

  private boolean isDirty(int index) {
    long entry = (index & capacity - 1) * ENTRY;
    return (int) FLAGS.getAcquire(entries, entry) == KVM_DIRTY_GFN_F_DIRTY;
  }

  /** Unmaps the ring. */
  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      arena.close();
    }
  }
}
