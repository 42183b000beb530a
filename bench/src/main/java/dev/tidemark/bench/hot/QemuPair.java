package dev.tidemark.bench.hot;

import dev.tidemark.bench.qemu.QemuBinary;
import dev.tidemark.bench.qemu.QemuProcess;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * QEMU to QEMU with the memory of {@link TransferPath}: one stream, no limit of bandwidth at either
 * end, no guest code running. The source's memory is a file in {@code /dev/shm}, filled by us; the
 * destination's is QEMU's own, allocated before, as Tidemark's is.
 */
public final class QemuPair implements AutoCloseable {
  private static final Path SHM = Path.of("/dev/shm");
  private static final Duration PATIENCE = Duration.ofSeconds(60);

  private final Path folder;
  private final Path ram;
  private QemuProcess from;
  private QemuProcess to;
  private int port;

  /** Makes the memory. */
  public QemuPair() {
    try {
      folder = Files.createTempDirectory("tidemark-qemu");
      ram = Files.createTempFile(SHM, "tidemark", ".ram");
      try (FileChannel file =
              FileChannel.open(ram, StandardOpenOption.READ, StandardOpenOption.WRITE);
          Arena arena = Arena.ofConfined()) {
        MemorySegment memory =
            file.map(FileChannel.MapMode.READ_WRITE, 0, TransferPath.BYTES, arena);
        TransferPath.fill(memory);
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Why it cannot be measured here; empty if it can. */
  public static Optional<String> missing() {
    return QemuBinary.installed().isPresent()
        ? Optional.empty()
        : Optional.of(QemuBinary.missing());
  }

  /** Starts two new QEMUs. */
  public void prepare() {
    stop();
    String size = (TransferPath.BYTES >> 20) + "M";
    from =
        machine(
            "from",
            size,
            "-object",
            "memory-backend-file,id=ram,size=" + size + ",share=on,mem-path=" + ram);
    to =
        machine(
            "to",
            size,
            "-object",
            "memory-backend-ram,id=ram,prealloc=on,size=" + size,
            "-incoming",
            "tcp:127.0.0.1:0");
    for (QemuProcess machine : List.of(from, to)) {
      // 0 is no limit.
      machine.execute("migrate-set-parameters", Map.of("max-bandwidth", 0));
    }
    port = to.incomingPort();
  }

  private QemuProcess machine(String name, String size, String... more) {
    List<String> arguments = new ArrayList<>(List.of("-S", "-accel", "kvm", "-accel", "tcg"));
    arguments.addAll(List.of("-m", size, "-machine", "memory-backend=ram"));
    arguments.addAll(List.of(more));
    return new QemuProcess(QemuBinary.installed().orElseThrow(), folder, name, arguments);
  }

  /** Migrates, to the end at the source. */
  public long migrate() {
    from.execute("migrate", Map.of("uri", "tcp:127.0.0.1:" + port));
    from.awaitMigrated(PATIENCE);
    return 0;
  }

  private void stop() {
    if (from != null) {
      from.close();
      from = null;
    }
    if (to != null) {
      to.close();
      to = null;
    }
  }

  @Override
  public void close() {
    stop();
    try {
      Files.deleteIfExists(ram);
      Files.deleteIfExists(folder);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
