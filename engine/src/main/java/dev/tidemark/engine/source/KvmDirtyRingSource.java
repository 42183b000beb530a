package dev.tidemark.engine.source;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.ffm.ClosedException;
import dev.tidemark.ffm.kvm.KvmDirtyRing;
import dev.tidemark.ffm.kvm.KvmVm;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.concurrent.locks.ReentrantLock;

/**
 * KVM's dirty rings: one per vCPU, an entry per page that was written for the first time since it
 * was protected. Entries go straight into the fill planes.
 *
 * <p>Sees what {@link KvmSlotLogSource} sees, and the VMM marks the same (docs/tracking.md).
 *
 * <p>A reap holds the fill plane of every log that has a slot here until {@code
 * KVM_RESET_DIRTY_RINGS} has taken all reaped entries back: so no page can be harvested, and read,
 * while it is unprotected.
 *
 * <p>After any failure of a reap, an interrupted reset among them, pages may be unprotected whose
 * writes no ring would ever tell. So logging goes off and on for all slots, which protects every
 * page anew, and then every page counts as dirty, before the fill planes are let go. Where even
 * that fails, each later reap tries it again and marks all pages. {@link #sync()} throws each such
 * failure, those of other threads' reaps too: {@link DirtyTracker#failures()} counts it.
 *
 * <p>Threading: {@link #reap()} from any thread, such as a vCPU's own on {@code
 * KVM_EXIT_DIRTY_RING_FULL}; such a thread must not hold a fill plane. Cost: proportional to the
 * entries, a few system calls for the reset, no allocation.
 */
public final class KvmDirtyRingSource implements DirtySource {
  private static final KvmDirtyRing.Sink NOWHERE = (_, _) -> {};

  private final Reset reset;
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
    this(vm, rings, slots, kickVcpus, vm::resetDirtyRings);
  }

  KvmDirtyRingSource(
      KvmVm vm, List<KvmDirtyRing> rings, List<KvmSlot> slots, Runnable kickVcpus, Reset reset) {
    this.reset = reset;
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
      untold = 0;
    } finally {
      reapLock.unlock();
    }
  }

  @Override
  public void sync() {
    kickVcpus.run();
    reapLock.lock();
    try {
      Throwable failure = take();
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
      Throwable failure = take();
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

  /** Reaps; returns what failed, all pages then being dirty, or null. */
  private Throwable take() {
    int held = 0;
    try {
      for (; held < logs.length; held++) {
        planes[held] = logs[held].fill();
      }
      placePlanes();
      Throwable failure = null;
      for (KvmDirtyRing ring : rings) {
        try {
          unreset += ring.harvest(sink);
        } catch (RuntimeException | Error e) {
          failure = first(failure, e);
        }
      }
      failure = takeBack(failure);
      if (strangers > 0) {
        failure =
            first(
                failure,
                new IllegalStateException(
                    strangers + " ring entries name no page of a known slot"));
        strangers = 0;
      }
      return failure == null && !unprotected ? null : recover(failure);
    } finally {
      while (held > 0) {
        planes[--held].close();
      }
    }
  }

  private static Throwable first(Throwable first, Throwable next) {
    if (first == null) {
      return next;
    }
    first.addSuppressed(next);
    return first;
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
      if (all) {
        return failure;
      }
      return first(
          failure,
          new IllegalStateException(
              "KVM_RESET_DIRTY_RINGS of "
                  + harvested
                  + " entries was interrupted, or somebody else harvests a ring of this VM:"
                  + " pages may have been unprotected"));
    } catch (RuntimeException | Error e) {
      return first(failure, e);
    }
  }

  /** Has KVM protect every page anew, then makes all of them dirty. */
  private Throwable recover(Throwable cause) {
    Throwable failure =
        cause != null
            ? cause
            : new IllegalStateException("pages were unprotected since a reap failed before");
    unprotected = true;
    try {
      logging.start();
      unprotected = false;
    } catch (RuntimeException | Error e) {
      failure = first(failure, e);
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

  /** Turns logging off, then empties the rings: a vCPU whose ring was full can run on. */
  @Override
  public void stop() {
    reapLock.lock();
    try {
      if (!tracking) {
        return;
      }
      tracking = false;
      RuntimeException failure = null;
      try {
        logging.stop();
      } catch (RuntimeException e) {
        failure = e;
      }
      try {
        drain();
      } catch (RuntimeException e) {
        failure = (RuntimeException) first(failure, e);
      }
      if (failure != null) {
        throw failure;
      }
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
