package dev.tidemark.engine.migrate;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.engine.source.DirtyTracker;
import dev.tidemark.engine.source.PagemapScanSource;
import dev.tidemark.engine.stream.Qemu;
import dev.tidemark.ffm.Socket;
import dev.tidemark.ffm.userfaultfd.Pagemap;
import dev.tidemark.ffm.userfaultfd.Userfaultfd;
import dev.tidemark.ffm.userfaultfd.UserfaultfdUapi;
import java.lang.foreign.Arena;
import java.net.InetSocketAddress;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.MethodSource;

/** The whole loop with a real QEMU as the destination, which has a block named {@code ram}. */
@Timeout(300)
@ParameterizedClass
@MethodSource("dev.tidemark.engine.stream.Qemu$Binary#values")
class MigrateIntoQemuTest {
  private static final long PAGES = (64 << 20) / 4096;

  @Parameter Qemu.Binary binary;

  @BeforeEach
  void needsQemu() {
    binary.assumeThere();
  }

  @Test
  void qemuHasTheMemoryOfTheSwitchOver(@TempDir Path folder) throws Exception {
    String missing =
        Userfaultfd.probe()
            .missing(UserfaultfdUapi.UFFD_FEATURE_WP_ASYNC)
            .or(Pagemap::missing)
            .orElse(null);
    assumeTrue(missing == null, missing);
    try (WritingGuest guest = new WritingGuest("ram", PAGES, 50, 7);
        Qemu qemu = new Qemu(binary, folder, "-M", "none", "-incoming", "tcp:127.0.0.1:0");
        Socket socket = Socket.connect(new InetSocketAddress("127.0.0.1", qemu.incomingPort()));
        DirtyTracker tracker = new DirtyTracker(List.of(guest.block()))) {
      guest.fill();
      guest.resume();
      tracker.add(new PagemapScanSource(tracker.logs()));
      MigrationResult result =
          new OutgoingMigration(
                  tracker,
                  socket,
                  guest,
                  List.of(),
                  MigrationOptions.DEFAULT
                      .withLimits(3, Duration.ofMinutes(1), AtLimit.STOP_AND_COPY)
                      .forQemu("none"),
                  p -> {})
              .run();
      assertEquals(Outcome.COMPLETED, result.outcome(), result.reason());
      assertTrue(result.rounds() > 1, "the guest must have written meanwhile");
      assertEquals("completed", qemu.migrationStatus(), qemu.output());
      Path saved = folder.resolve("memory");
      qemu.execute(
          "pmemsave",
          "{\"val\": 0, \"size\": %d, \"filename\": \"%s\"}"
              .formatted(guest.block().bytes(), saved));
      try (Arena arena = Arena.ofConfined();
          FileChannel file = FileChannel.open(saved)) {
        var found = file.map(FileChannel.MapMode.READ_ONLY, 0, file.size(), arena);
        assertEquals(-1, guest.block().memory().mismatch(found), "first byte that differs");
      }
    }
  }
}
