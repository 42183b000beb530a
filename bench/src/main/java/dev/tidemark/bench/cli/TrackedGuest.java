package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.KvmGuest;
import dev.tidemark.bench.guest.ProcessGuest;
import dev.tidemark.bench.guest.SelfCheckingGuest;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.migrate.GuestControl;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.KvmDirtyRingSource;
import dev.tidemark.engine.source.KvmSlot;
import dev.tidemark.engine.source.KvmSlotLogSource;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.KvmConstants;
import java.util.List;

/** A self-checking guest with the dirty sources that see all of its writers. */
final class TrackedGuest implements AutoCloseable {
  private final SelfCheckingGuest guest;
  private final DirtyTracker tracker;

  private TrackedGuest(SelfCheckingGuest guest) {
    this.guest = guest;
    this.tracker = new DirtyTracker(List.of(guest.ram()));
    RamBlockLog log = tracker.logs().getFirst();
    guest.onVmmWrite(log::mark);
  }

  /**
   * Creates a guest, not running yet.
   *
   * @param kind kvm or process
   * @param rate test pages a second, 0 for as fast as it can
   */
  static TrackedGuest create(GuestKind kind, Tracking tracking, long ramBytes, long rate) {
    if (kind == GuestKind.process) {
      if (tracking != Tracking.auto) {
        throw new IllegalArgumentException(
            "--tracking " + tracking + " is KVM's: a process guest is tracked by PAGEMAP_SCAN");
      }
      TrackedGuest tracked = new TrackedGuest(ProcessGuest.create(ramBytes, rate));
      tracked.tracker.add(new PagemapScanSource(tracked.tracker.logs()));
      return tracked;
    }
    KvmGuest guest =
        KvmGuest.create(
            ramBytes,
            tracking == Tracking.ring ? KvmGuest.Tracking.RING : KvmGuest.Tracking.NONE,
            rate);
    TrackedGuest tracked = new TrackedGuest(guest);
    try {
      tracked.addKvmSource(guest, tracking);
      return tracked;
    } catch (RuntimeException e) {
      tracked.close();
      throw e;
    }
  }

  private void addKvmSource(KvmGuest guest, Tracking tracking) {
    RamBlockLog log = tracker.logs().getFirst();
    List<KvmSlot> slots =
        guest.slots().stream()
            .map(
                slot ->
                    new KvmSlot(
                        slot.id(),
                        log,
                        slot.firstPage(),
                        slot.pages(),
                        slot.firstPage() << Pages.SHIFT,
                        0))
            .toList();
    if (tracking == Tracking.ring) {
      var source = new KvmDirtyRingSource(guest.vm(), guest.rings(), slots, guest::flushVcpus);
      guest.onRingFull(source::reap);
      tracker.add(source);
      return;
    }
    boolean manual =
        switch (tracking) {
          case plain -> false;
          case manual -> true;
          default -> guest.vm().checkExtension(KvmConstants.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) > 0;
        };
    tracker.add(new KvmSlotLogSource(guest.vm(), slots, manual));
  }

  SelfCheckingGuest guest() {
    return guest;
  }

  DirtyTracker tracker() {
    return tracker;
  }

  /** Stops and resumes the guest for a migration. */
  GuestControl control() {
    return new GuestControl() {
      @Override
      public void stop() {
        guest.pause();
      }

      @Override
      public void resume() {
        guest.resume();
      }
    };
  }

  @Override
  public void close() {
    // The guest first: while it runs it may still be logged, reaped and marked for.
    guest.pause();
    tracker.close();
    guest.close();
  }
}
