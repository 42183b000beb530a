package dev.tidemark.engine;

import dev.tidemark.engine.log.RamBlock;
import dev.tidemark.engine.migrate.GuestControl;
import dev.tidemark.engine.migrate.MigrationOptions;
import dev.tidemark.engine.migrate.MigrationResult;
import dev.tidemark.engine.migrate.OutgoingMigration;
import dev.tidemark.engine.migrate.StateSection;
import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.KvmSlot;
import dev.tidemark.engine.source.KvmSlotLogSource;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.kvm.KvmVm;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.time.Duration;
import java.util.List;

/** The README's example, compiled; {@link ReadmeTest} compares the two. */
final class ReadmeExample {
  private ReadmeExample() {}

  // README begin
  /** A VMM moves its guest away: memory and VM are its own, Tidemark borrows them. */
  static MigrationResult moveAway(
      int vmFd, MemorySegment ram, GuestControl vcpus, StateSection registers) {
    var block = new RamBlock("pc.ram", ram);
    try (var vm = KvmVm.borrow(vmFd);
        var tracker = new DirtyTracker(List.of(block));
        var socket = Socket.connect(new InetSocketAddress("127.0.0.1", 4444))) {
      var log = tracker.log(block);
      var slot = new KvmSlot(0, log, 0, block.pages(), 0x0, 0);
      tracker.add(new KvmSlotLogSource(vm, List.of(slot), true));
      // Whatever the VMM itself writes into guest memory: write, then log.mark(page, pages).
      var options = MigrationOptions.DEFAULT.withDowntimeLimit(Duration.ofMillis(100));
      var migration =
          new OutgoingMigration(
              tracker, socket, vcpus, List.of(registers), options, System.out::println);
      return migration.run();
    }
  }
  // README end
}
