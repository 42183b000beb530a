package dev.tidemark.bench.cli;

import dev.tidemark.bench.guest.KvmGuest;
import dev.tidemark.bench.guest.ProcessGuest;
import dev.tidemark.bench.guest.SelfCheckingGuest;
import dev.tidemark.bench.lab.GuestIommu;
import dev.tidemark.bench.lab.LabDevice;
import dev.tidemark.bench.lab.LabGuestDevices;
import dev.tidemark.engine.log.RamBlockLog;
import dev.tidemark.engine.migrate.GuestControl;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.KvmDirtyRingSource;
import dev.tidemark.engine.source.KvmSlot;
import dev.tidemark.engine.source.KvmSlotLogSource;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.ffm.Pages;
import dev.tidemark.ffm.kvm.KvmConstants;
import dev.tidemark.ffm.vfio.VfioDevice;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalLong;

/** A self-checking guest with the dirty sources that see all of its writers. */
final class TrackedGuest implements AutoCloseable {
  private final SelfCheckingGuest guest;
  private final DirtyTracker tracker;

  /** What a guest of the lab has besides; null for others. */
  private LabDevice device;

  private GuestIommu iommu;

  private TrackedGuest(SelfCheckingGuest guest) {
    this.guest = guest;
    this.tracker = new DirtyTracker(List.of(guest.ram()));
    RamBlockLog log = tracker.logs().getFirst();
    guest.onVmmWrite(log::mark);
  }

  /**
   * Creates a guest, not running yet.
   *
   * @param kind any but auto
   * @param rate test pages a second, 0 for as fast as it can
   */
  static TrackedGuest create(GuestKind kind, Tracking tracking, long ramBytes, long rate) {
    if (kind != GuestKind.kvm && tracking != Tracking.auto) {
      throw new IllegalArgumentException(
          String.format(
              Locale.ROOT,
              "--tracking %s is KVM's: a %s guest is tracked by %s",
              tracking,
              kind,
              kind == GuestKind.process ? "PAGEMAP_SCAN" : "who writes it"));
    }
    if (kind.isOfTheLab()) {
      return ofTheLab(kind.device(), ramBytes, rate);
    }
    if (kind == GuestKind.process) {
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

  private static TrackedGuest ofTheLab(LabDevice device, long ramBytes, long rate) {
    TrackedGuest tracked = null;
    try {
      ProcessGuest guest = ProcessGuest.create(ramBytes, rate);
      tracked = new TrackedGuest(guest);
      tracked.device = device;
      tracked.tracker.add(device.source());
      RamBlockLog log = tracked.tracker.logs().getFirst();
      // No CPU writes there but the VMM's own, which are marked.
      tracked.tracker.coverByMarks(log, 0, log.block().pages());
      tracked.iommu = new GuestIommu(device, log);
      guest.writeBy(tracked.iommu);
      tracked.iommu.start();
      return tracked;
    } catch (RuntimeException e) {
      if (tracked == null) {
        device.close();
      } else {
        tracked.close();
      }
      throw e;
    }
  }

  /**
   * Makes room for a guest that comes from another host. A guest of the lab runs on without the
   * devices that wrote it, but for the one that brings a state.
   */
  static TrackedGuest arriving(GuestKind kind, long ramBytes) {
    if (!kind.isOfTheLab()) {
      TrackedGuest tracked = create(kind, Tracking.auto, ramBytes, 0);
      tracked.guest.populate();
      return tracked;
    }
    LabDevice device = kind == GuestKind.dmalog ? LabGuestDevices.dmalogAtDestination() : null;
    try {
      TrackedGuest tracked = new TrackedGuest(ProcessGuest.create(ramBytes, 0));
      tracked.device = device;
      return tracked;
    } catch (RuntimeException e) {
      if (device != null) {
        device.close();
      }
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

  /** The device whose state goes with the guest, if there is one. */
  Optional<VfioDevice> migratingDevice() {
    return Optional.ofNullable(device).flatMap(LabDevice::migrates);
  }

  /** How often memory was unmapped under tracking; empty where nobody unmaps. */
  OptionalLong unmaps() {
    return iommu == null
        ? OptionalLong.empty()
        : OptionalLong.of(device.source().unmapReport().unmaps());
  }

  /** Stops and resumes the guest for a migration. */
  GuestControl control() {
    return new GuestControl() {
      @Override
      public void stop() {
        guest.pause();
        if (iommu != null) {
          iommu.stop();
        }
      }

      @Override
      public void resume() {
        if (iommu != null) {
          iommu.start();
        }
        guest.resume();
      }
    };
  }

  @Override
  public void close() {
    // The guest first: while it runs it may still be logged, reaped and marked for.
    guest.pause();
    if (iommu != null) {
      iommu.close();
    }
    tracker.close();
    if (device != null) {
      device.close();
    }
    guest.close();
  }
}
