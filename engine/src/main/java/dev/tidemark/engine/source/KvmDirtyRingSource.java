package dev.tidemark.engine.source;

import dev.tidemark.engine.log.FillPlane;
import dev.tidemark.engine.log.RamBlockLog;
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
 * <p>Threading: {@link #reap()} from any thread, such as a vCPU's own on {@code
 * KVM_EXIT_DIRTY_RING_FULL}; such a thread must not hold a fill plane. Cost: proportional to the
 * entries, one or more calls for the reset, no allocation.
 */
public final class KvmDirtyRingSource implements DirtySource {
  // The kernel returns early, with 0 at worst, on a signal; so often without progress is no
  // accident.
  private static final int RESETS_WITHOUT_PROGRESS = 1000;

  private final KvmVm vm;
  private final KvmDirtyRing[] rings;
  private final KvmSlot[] slots;
  private final KvmLogging logging;
  private final KvmSlot[] byNumber;
  private final RamBlockLog[] logs;
  private final FillPlane[] planes;
  private final FillPlane[] planeOfSlot;
  private final Runnable kickVcpus;
  private final ReentrantLock reapLock = new ReentrantLock();
  private final KvmDirtyRing.Sink sink = this::dirty;
  private long unreset;
  private long strangers;

  /**
   * @param vm the VM, borrowed, with the ring enabled before its first vCPU, and without manual
   *     protect
   * @param rings the ring of each vCPU, borrowed
   * @param slots its slots that can be written by the guest, numbers below 65536
   * @param kickVcpus makes every vCPU leave {@code KVM_RUN} once and waits for it: hardware buffers
   *     (Intel PML) reach the ring only then. Called without any lock held
   */
  public KvmDirtyRingSource(
      KvmVm vm, List<KvmDirtyRing> rings, List<KvmSlot> slots, Runnable kickVcpus) {
    this.vm = vm;
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
    logging.start();
  }

  @Override
  public void sync() {
    kickVcpus.run();
    reap();
  }

  /**
   * Empties all rings into the logs and gives the entries back to KVM.
   *
   * @throws RuntimeException if an entry could not be placed or taken back; then {@link #markAll()}
   *     has been called
   */
  public void reap() {
    reapLock.lock();
    try {
      int held = 0;
      try {
        for (; held < logs.length; held++) {
          planes[held] = logs[held].fill();
        }
        placePlanes();
        for (KvmDirtyRing ring : rings) {
          unreset += ring.harvest(sink);
        }
        reset();
        if (strangers > 0) {
          long count = strangers;
          strangers = 0;
          throw new IllegalStateException(count + " ring entries name no page of a known slot");
        }
      } catch (RuntimeException e) {
        markAll();
        throw e;
      } finally {
        while (held > 0) {
          planes[--held].close();
        }
      }
    } finally {
      reapLock.unlock();
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
  }

  private void reset() {
    int idle = 0;
    while (unreset > 0) {
      int count = vm.resetDirtyRings();
      planes[0].countQuery();
      unreset = Math.max(0, unreset - count);
      idle = count > 0 ? 0 : idle + 1;
      if (idle > RESETS_WITHOUT_PROGRESS) {
        // Kept, so that every later reap tries and fails again: pages that stay unprotected are in
        // no
        // ring, and count as dirty each time until they are taken back.
        throw new IllegalStateException(
            "KVM_RESET_DIRTY_RINGS leaves " + unreset + " reaped entries unprotected");
      }
    }
  }

  @Override
  public void markAll() {
    logging.markAll();
  }

  @Override
  public void stop() {
    logging.stop();
  }

  /** Turns tracking off; VM and rings stay the VMM's. */
  @Override
  public void close() {
    stop();
  }
}
