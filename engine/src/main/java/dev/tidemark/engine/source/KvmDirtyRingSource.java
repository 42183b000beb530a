package dev.tidemark.engine.source;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.internal.Unwind;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmVm;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;
import java.util.function.BooleanSupplier;

/**
 * KVM's dirty rings: one per vCPU, an entry per page that was written for the first time since it
 * was protected. Entries go straight into the fill planes.
 *
 * <p>Sees what {@link KvmSlotLogSource} sees, and the VMM marks the same (docs/tracking.md).
 *
 * <p>A reap holds the fill plane of every log that has a slot here until {@code
 * KVM_RESET_DIRTY_RINGS} has taken all reaped entries back: so no page can be harvested, and read,
 * while it is unprotected. But {@link #lastSync()}, as no vCPU runs then, leaves the entries to
 * {@link #stop()}; a reap before that counts every page as dirty.
 *
 * <p>After any failure of a reap, an interrupted reset among them, pages may be unprotected whose
 * writes no ring would ever tell. So logging goes off and on for all slots, which protects every
 * page anew, and then every page counts as dirty, before the fill planes are let go. Where even
 * that fails, each later reap tries it again and marks all pages. {@link #sync()} throws each such
 * failure, those of other threads' reaps too: {@link DirtyTracker#failures()} counts it.
 *
 * <p>A stop of the process in a reset is seen by nothing but that the thread slept. Then the pages
 * about the last entry of each ring count as dirty once more at the last sync ({@link
 * #alwaysDirtyPages}); if that were too many, it is a failure as above.
 *
 * <p>Threading: {@link #reap()} from any thread, such as a vCPU's own on {@code
 * KVM_EXIT_DIRTY_RING_FULL}; such a thread must not hold a fill plane. Cost: proportional to the
 * entries, a few system calls for the reset, no allocation.
 */
public final class KvmDirtyRingSource implements DirtySource {
  private static final KvmDirtyRing.Sink NOWHERE = (_, _) -> {};

  /** The kernel protects entries together whose pages are so few apart. */
  private static final int BATCH = 64;

  private static final int MOST_SUSPECTS = 256;

  private final Reset reset;
  private final BooleanSupplier slept;
  private final KvmDirtyRing[] rings;
  private final KvmSlot[] slots;
  private final KvmLogging logging;
  private final KvmSlot[] byNumber;
  private final RamBlockLog[] logs;
  private final FillPlane[] planes;
  private final FillPlane[] planeOfSlot;
  private final Runnable kickVcpus;
  private final KvmDirtyRing.Sink sink = this::dirty;

  /** Guards all that follows. */
  private final ReentrantLock reapLock = new ReentrantLock();

  private boolean tracking;

  /** Entries that were reaped and are not taken back yet. */
  private long unreset;

  /** Whether pages may be unprotected whose next writes no ring would tell. */
  private boolean unprotected;

  /** The last entry of each ring before a reset in which the thread slept. */
  private final int[] suspectSlots = new int[MOST_SUSPECTS];

  private final long[] suspectPages = new long[MOST_SUSPECTS];
  private int suspects;

  /** Such entries of the reap under way, after these. */
  private int candidates;

  private int lastSlot;
  private long lastPage;
  private long strangers;

  /** Failed reaps outside of syncs since the last sync, and the first one's failure. */
  private long untold;

  private Throwable firstUntold;

  /** {@link KvmVm#resetDirtyRings}, or what a test puts in its place. */
  @FunctionalInterface
  interface Reset {
    boolean reset(long harvested);
  }

  /**
   * @param vm the VM, borrowed, with the ring enabled before its first vCPU, and without manual
   *     protect
   * @param rings the ring of each vCPU, borrowed; harvested by nobody else while tracking is on
   * @param slots its slots that can be written by the guest, numbers below 65536
   * @param kickVcpus makes every vCPU leave {@code KVM_RUN} once and waits for it: hardware buffers
   *     (Intel PML) reach the ring only then. Called without any lock held
   */
  public KvmDirtyRingSource(
      KvmVm vm, List<KvmDirtyRing> rings, List<KvmSlot> slots, Runnable kickVcpus) {
    this(vm, rings, slots, kickVcpus, vm::resetDirtyRings, vm::sleptInReset);
  }

  KvmDirtyRingSource(
      KvmVm vm,
      List<KvmDirtyRing> rings,
      List<KvmSlot> slots,
      Runnable kickVcpus,
      Reset reset,
      BooleanSupplier slept) {
    this.reset = reset;
    this.slept = slept;
    this.rings = rings.toArray(KvmDirtyRing[]::new);
    this.slots = slots.toArray(KvmSlot[]::new);
    this.logging = new KvmLogging(vm, this.slots);
    this.kickVcpus = kickVcpus;
    int highest = slots.stream().mapToInt(KvmSlot::slot).max().orElseThrow();
    byNumber = new KvmSlot[highest + 1];
    Set<RamBlockLog> distinct = new LinkedHashSet<>();
    for (KvmSlot slot : slots) {
      byNumber[slot.slot()] = slot;
      distinct.add(slot.log());
    }
    logs = distinct.toArray(RamBlockLog[]::new);
    planes = new FillPlane[logs.length];
    planeOfSlot = new FillPlane[highest + 1];
  }

  @Override
  public String name() {
    return "kvm-ring";
  }

  @Override
  public void cover(Coverage coverage) {
    logging.cover(coverage);
  }

  @Override
  public void start() {
    reapLock.lock();
    try {
      logging.start();
      tracking = true;
      unprotected = false;
      suspects = 0;
      untold = 0;
    } finally {
      reapLock.unlock();
    }
  }

  @Override
  public void sync() {
    sync(true);
  }

  @Override
  public void lastSync() {
    sync(false);
  }

  private void sync(boolean protect) {
    kickVcpus.run();
    reapLock.lock();
    try {
      Throwable failure = take(protect);
      if (failure == null && untold > 0) {
        failure =
            new IllegalStateException(
                untold + " reaps failed since the last sync, the first with: " + firstUntold,
                firstUntold);
      }
      untold = 0;
      if (failure != null) {
        throw unchecked(failure);
      }
    } finally {
      reapLock.unlock();
    }
  }

  /**
   * Empties all rings into the logs and gives the entries back to KVM. While tracking is off, the
   * entries go nowhere: so a vCPU whose ring became full before can run on, at any time.
   *
   * <p>A failure after which the rings are free all the same is not thrown here, because the vCPU
   * can go on: all pages count as dirty, and the next sync tells of it.
   *
   * @throws RuntimeException if entries could not be given back, so that a vCPU whose ring is full
   *     cannot run; then {@link #markAll()} has been called, and the next sync throws too
   */
  public void reap() {
    reapLock.lock();
    try {
      if (!tracking) {
        drain();
        return;
      }
      Throwable failure = take(true);
      if (failure == null) {
        return;
      }
      if (untold++ == 0) {
        firstUntold = failure;
      }
      if (failure instanceof Error || unreset > 0) {
        throw unchecked(failure);
      }
    } finally {
      reapLock.unlock();
    }
  }

  private static RuntimeException unchecked(Throwable failure) {
    if (failure instanceof Error error) {
      throw error;
    }
    return (RuntimeException) failure;
  }

  /**
   * Reaps.
   *
   * @param protect whether writes are to be noticed after it: else the entries are left for {@link
   *     #stop()} to give back, and a reap before that counts all pages as dirty
   * @return what failed, all pages then being dirty, or null
   */
  private Throwable take(boolean protect) {
    int held = 0;
    try {
      for (; held < logs.length; held++) {
        planes[held] = logs[held].fill();
      }
      placePlanes();
      Throwable failure = null;
      candidates = 0;
      for (KvmDirtyRing ring : rings) {
        try {
          int taken = ring.harvest(sink);
          unreset += taken;
          if (taken > 0) {
            addCandidate();
          }
        } catch (RuntimeException | Error e) {
          failure = Unwind.join(failure, e);
        }
      }
      if (protect || failure != null) {
        failure = takeBack(failure);
      }
      if (strangers > 0) {
        failure =
            Unwind.join(
                failure,
                new IllegalStateException(
                    strangers + " ring entries name no page of a known slot"));
        strangers = 0;
      }
      if (failure != null || unprotected) {
        return recover(failure);
      }
      unprotected = !protect && unreset > 0;
      return null;
    } finally {
      while (held > 0) {
        planes[--held].close();
      }
    }
  }

  private void placePlanes() {
    for (KvmSlot slot : slots) {
      for (int i = 0; i < logs.length; i++) {
        if (logs[i] == slot.log()) {
          planeOfSlot[slot.slot()] = planes[i];
        }
      }
    }
  }

  private void dirty(int number, long page) {
    KvmSlot slot = number >= 0 && number < byNumber.length ? byNumber[number] : null;
    if (slot == null || page < 0 || page >= slot.pages()) {
      // Not thrown from here: the ring's own bookkeeping must reach the entry's end first.
      strangers++;
      return;
    }
    planeOfSlot[number].set(slot.firstPage() + page, 1);
    lastSlot = number;
    lastPage = page;
  }

  private void addCandidate() {
    int at = suspects + candidates++;
    if (at < MOST_SUSPECTS) {
      suspectSlots[at] = lastSlot;
      suspectPages[at] = lastPage;
    }
  }

  private Throwable takeBack(Throwable failure) {
    // After a failed harvest nobody knows how many entries it took before that.
    if (unreset == 0 && failure == null) {
      return null;
    }
    try {
      planes[0].countQuery();
      long harvested = unreset;
      boolean all = reset.reset(harvested);
      unreset = 0;
      if (all && !slept.getAsBoolean()) {
        return failure;
      }
      if (all && suspects + candidates <= MOST_SUSPECTS) {
        suspects += candidates;
        return failure;
      }
      return Unwind.join(
          failure,
          new IllegalStateException(
              "KVM_RESET_DIRTY_RINGS of "
                  + harvested
                  + " entries was interrupted, or somebody else harvests a ring of this VM:"
                  + " pages may have been unprotected"));
    } catch (RuntimeException | Error e) {
      return Unwind.join(failure, e);
    }
  }

  /** Has KVM protect every page anew, then makes all of them dirty. */
  private Throwable recover(Throwable cause) {
    Throwable failure =
        cause != null
            ? cause
            : new IllegalStateException(
                "pages were unprotected since the last sync of a stopped guest, or since a reap"
                    + " failed before");
    unprotected = true;
    try {
      logging.start();
      unprotected = false;
      suspects = 0;
    } catch (RuntimeException | Error e) {
      failure = Unwind.join(failure, e);
    }
    markAll();
    return failure;
  }

  /** Empties the rings and forgets what was in them; tracking is off. */
  private void drain() {
    for (KvmDirtyRing ring : rings) {
      try {
        unreset += ring.harvest(NOWHERE);
      } catch (ClosedException e) {
        // Its vCPU has no ring here any more that somebody could empty.
      }
    }
    if (unreset > 0) {
      reset.reset(unreset);
      unreset = 0;
    }
  }

  @Override
  public void markAll() {
    logging.markAll();
  }

  @Override
  public long alwaysDirtyPages() {
    reapLock.lock();
    try {
      return suspects * (2L * BATCH - 1);
    } finally {
      reapLock.unlock();
    }
  }

  @Override
  public void markAlwaysDirty() {
    reapLock.lock();
    try {
      for (int i = 0; i < suspects; i++) {
        KvmSlot slot = byNumber[suspectSlots[i]];
        long first = Math.max(0, suspectPages[i] - BATCH + 1);
        long end = Math.min(slot.pages(), suspectPages[i] + BATCH);
        try (FillPlane fill = slot.log().fill()) {
          fill.set(slot.firstPage() + first, end - first);
        }
      }
    } finally {
      reapLock.unlock();
    }
  }

  /** Turns logging off, then empties the rings: a vCPU whose ring was full can run on. */
  @Override
  public void stop() {
    reapLock.lock();
    try {
      if (!tracking) {
        return;
      }
      tracking = false;
      Unwind.rethrow(Unwind.attempt(Unwind.attempt(null, logging::stop), this::drain));
    } finally {
      reapLock.unlock();
    }
  }

  /** Turns tracking off; VM and rings stay the VMM's. */
  @Override
  public void close() {
    stop();
  }
}
