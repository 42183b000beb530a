package dev.tidemark.engine.stream;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Socket;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.Parameter;
import org.junit.jupiter.params.ParameterizedClass;
import org.junit.jupiter.params.provider.MethodSource;

/** A real QEMU is the other side. */
@Timeout(300)
@ParameterizedClass
@MethodSource("dev.tidemark.engine.stream.Qemu$Binary#values")
class QemuInteropTest {
  private static final long BYTES = 64 << 20;
  private static final long PAGES = BYTES / 4096;
  private static final int PATIENCE = (int) TimeUnit.NANOSECONDS.toMillis(Qemu.PATIENCE);

  @TempDir Path folder;

  @Parameter Qemu.Binary binary;

  @BeforeEach
  void needsQemu() {
    binary.assumeThere();
  }

  @Test
  void qemuLoadsWhatIsWrittenWhileMemoryChanges() throws Exception {
    SplittableRandom random = Seed.random();
    try (Qemu qemu = new Qemu(binary, folder, "-M", "none", "-incoming", "tcp:127.0.0.1:0");
        Socket socket = connectTo(qemu);
        GuestMemory memory = new GuestMemory("ram", PAGES)) {
      StreamWriter writer = new StreamWriter(socket, new Throttle(0));
      writer.begin("none");
      writer.startRam(List.of(memory.block));
      send(writer, memory, random, () -> {});
      writer.eof();
      socket.shutdownOutput();
      assertQemuHas(qemu, memory);
    }
  }

  @Test
  void qemuAcknowledgesOnTheReturnPath() throws Exception {
    SplittableRandom random = Seed.random();
    try (Qemu qemu = new Qemu(binary, folder, "-M", "none", "-incoming", "tcp:127.0.0.1:0");
        Socket socket = connectTo(qemu);
        GuestMemory memory = new GuestMemory("ram", PAGES)) {
      StreamWriter writer = new StreamWriter(socket, new Throttle(0));
      ReturnPath answers = new ReturnPath(socket);
      writer.begin("none");
      writer.openReturnPath();
      writer.startRam(List.of(memory.block));
      int[] pings = {0};
      Runnable acknowledged =
          () -> {
            writer.ping(++pings[0]);
            answers.awaitPong(pings[0], PATIENCE);
          };
      send(writer, memory, random, acknowledged);
      acknowledged.run();
      writer.eof();
      writer.description("{}");
      assertEquals(0, answers.awaitShut(PATIENCE));
      assertQemuHas(qemu, memory);
    }
  }

  private static Socket connectTo(Qemu qemu) throws Exception {
    return Socket.connect(new InetSocketAddress("127.0.0.1", qemu.incomingPort()));
  }

  /** Sends all of the memory, while a few of its pages go on changing until the last round. */
  private static void send(
      StreamWriter writer, GuestMemory memory, SplittableRandom random, Runnable endOfRound)
      throws Exception {
    for (long page = 0; page < PAGES; page += random.nextInt(1, 4)) {
      memory.randomize(random, page);
    }
    long busy = 200;
    SplittableRandom guests = random.split();
    AtomicBoolean stop = new AtomicBoolean();
    FutureTask<Void> guest =
        Connection.inBackground(
            () -> {
              while (!stop.get()) {
                memory.randomize(guests, guests.nextLong(busy));
              }
              return null;
            });
    writer.beginRound();
    writer.pages(memory.block, 0, PAGES);
    writer.endRound();
    endOfRound.run();
    for (int round = 0; round < 3; round++) {
      writer.beginRound();
      writer.pages(memory.block, 0, busy);
      for (int i = 0; i < 300; i++) {
        long page = random.nextLong(busy, PAGES);
        memory.randomize(random, page);
        writer.pages(memory.block, page, 1);
      }
      writer.endRound();
      endOfRound.run();
    }
    stop.set(true);
    guest.get();
    writer.beginRound();
    writer.pages(memory.block, 0, busy);
    writer.endRound();
    writer.endRam();
  }

  private void assertQemuHas(Qemu qemu, GuestMemory memory) throws Exception {
    assertEquals("completed", qemu.migrationStatus(), qemu.output());
    Path saved = folder.resolve("memory");
    qemu.execute(
        "pmemsave", "{\"val\": 0, \"size\": %d, \"filename\": \"%s\"}".formatted(BYTES, saved));
    try (Arena arena = Arena.ofConfined();
        FileChannel file = FileChannel.open(saved)) {
      MemorySegment found = file.map(MapMode.READ_ONLY, 0, BYTES, arena);
      assertEquals(BYTES, file.size());
      assertEquals(-1, memory.block.memory().mismatch(found), "first byte that differs");
    }
  }

  @Test
  void whatQemuSendsIsLoaded() throws Exception {
    SplittableRandom random = Seed.random();
    Path backing = folder.resolve("backing");
    try (Arena arena = Arena.ofConfined();
        GuestMemory memory = new GuestMemory("m0", PAGES);
        GuestMemory sent = new GuestMemory("m0", PAGES);
        FileChannel file =
            FileChannel.open(
                backing,
                StandardOpenOption.CREATE,
                StandardOpenOption.READ,
                StandardOpenOption.WRITE)) {
      for (long page = 0; page < PAGES; page += random.nextInt(1, 4)) {
        sent.randomize(random, page);
      }
      file.map(MapMode.READ_WRITE, 0, BYTES, arena).copyFrom(sent.block.memory());
      memory.block.memory().fill((byte) 9);
      try (Qemu qemu =
              new Qemu(
                  binary,
                  folder,
                  "-M",
                  "none,memory-backend=m0",
                  "-object",
                  "memory-backend-file,id=m0,size=64M,mem-path=" + backing + ",share=on");
          Socket listening = Socket.listen(new InetSocketAddress("127.0.0.1", 0))) {
        qemu.execute(
            "migrate", "{\"uri\": \"tcp:127.0.0.1:" + listening.localAddress().getPort() + "\"}");
        try (Socket socket = listening.accept()) {
          StreamReader reader = new StreamReader(socket, "none", List.of(memory.block), List.of());
          reader.loadUntilHandover();
          String description = reader.description().orElseThrow();
          assertTrue(description.startsWith("{") && description.contains("globalstate"));
          assertEquals("completed", qemu.migrationStatus(), qemu.output());
          GuestMemory.assertSame(sent, memory);
        }
      }
    }
  }

  @Test
  void qemuThatWantsAcknowledgementGetsIt() throws Exception {
    try (GuestMemory memory = new GuestMemory("ram", PAGES);
        Qemu qemu = new Qemu(binary, folder, "-M", "none");
        Socket listening = Socket.listen(new InetSocketAddress("127.0.0.1", 0))) {
      qemu.execute(
          "migrate-set-capabilities",
          "{\"capabilities\": [{\"capability\": \"return-path\", \"state\": true}]}");
      qemu.execute(
          "migrate", "{\"uri\": \"tcp:127.0.0.1:" + listening.localAddress().getPort() + "\"}");
      try (Socket socket = listening.accept()) {
        StreamReader reader = new StreamReader(socket, "none", List.of(memory.block), List.of());
        reader.loadUntilHandover();
        assertTrue(reader.description().isPresent());
        reader.shut(0);
        assertEquals("completed", qemu.migrationStatus(), qemu.output());
        assertEquals(PAGES, reader.zeroPagesRead());
      }
    }
  }

  @Test
  void aGuestThatRunsInQemuIsLoadedAsItIsWhereItStopped() throws Exception {
    SplittableRandom random = Seed.random();
    try (Guest guest = new Guest(folder, random, PAGES)) {
      guest.turnOn("return-path");
      // A third of a second for the first round, in which the guest goes on writing.
      guest.qemu.execute("migrate-set-parameters", "{\"max-bandwidth\": 100000000}");
      guest.run();
      StreamReader reader = guest.reader();
      reader.loadUntilHandover();
      assertTrue(reader.description().isPresent());
      reader.shut(0);
      assertEquals("completed", guest.qemu.migrationStatus(), guest.qemu.output());
      long read = reader.pagesRead() + reader.zeroPagesRead();
      assertTrue(read > PAGES + Guest.BIOS_PAGES, read + " pages: none came again");
      assertEquals(
          -1, guest.memory.mismatch(guest.loaded.block.memory()), "first byte that differs");
      guest.loaded.checkCanaries();
    }
  }

  /** Capabilities of a source, and what the reader says of the stream that each leads to. */
  private Map<String, String> refusals() {
    Map<String, String> refusals = new LinkedHashMap<>();
    refusals.put("multifd", "multifd");
    refusals.put("postcopy-ram", "command 3 (POSTCOPY_ADVISE): postcopy is not supported here;");
    refusals.put("x-ignore-shared", "subsection configuration/capabilities: the source has a");
    refusals.put("validate-uuid", "subsection configuration/uuid: turn off validate-uuid");
    if (!binary.isAtLeast(9)) {
      refusals.put("compress", "ram record's flags: COMPRESS_PAGE (0x100): compressed pages");
    }
    if (!binary.isAtLeast(11)) {
      // What newer ones send first does not tell of it.
      refusals.put("x-colo", "command 8 (ENABLE_COLO): COLO is not supported here;");
    }
    if (binary.isAtLeast(8)) {
      // Older ones end this guest's migration before there is a page to send a third time.
      refusals.put("xbzrle", "ram record's flags: XBZRLE (0x40): deltas are not supported here;");
    }
    return refusals;
  }

  @Test
  void whatIsNotSupportedIsRefusedByItsName() throws Exception {
    SplittableRandom random = Seed.random();
    for (var refusal : refusals().entrySet()) {
      String capability = refusal.getKey();
      try (Guest guest = new Guest(folder(capability), random, 1024)) {
        guest.turnOn("return-path");
        guest.turnOn(capability);
        if (capability.equals("xbzrle")) {
          // Rounds of 0.4 s, each of which leaves more than may be left for the last one: they go
          // on
          // until there is a delta, in the third at the earliest.
          guest.qemu.execute(
              "migrate-set-parameters", "{\"max-bandwidth\": 3000000, \"downtime-limit\": 20}");
          guest.run();
        }
        StreamReader reader = guest.reader();
        StreamException e =
            assertThrows(StreamException.class, reader::loadUntilHandover, capability);
        assertTrue(e.getMessage().contains(refusal.getValue()), e.getMessage());
        guest.socket.close();
        assertEquals("failed", guest.qemu.migrationStatus(), guest.qemu.output());
      }
    }
  }

  private Path folder(String name) throws IOException {
    return Files.createDirectory(folder.resolve(name));
  }

  /** A QEMU whose guest, once it runs, writes pages and zeroes others, as fast as it can. */
  private final class Guest implements AutoCloseable {
    static final long BIOS_PAGES = 16;

    /**
     * At address 0x1000: into protected mode, then for ever: one of 512 pages from 1 MiB on, chosen
     * by a linear congruential generator, is zeroed or gets 64 equal words.
     */
    private static final String CODE =
        "fa2e660f011670100f20c00c010f22c066ea18100000080066b810008ed8"
            + "8ec0bb3930000069db0d66190081c35ff36e3c89dfc1ef0881e700f01f00"
            + "81c70000100089d8b94000000085db790731c0b900040000f3abebcd0000"
            + "000000000000ffff0000009acf00ffff00000092cf00170058100000";

    private static final long WRITTEN = 1 << 20;
    private static final long WRITTEN_BYTES = 512 * 4096;

    private final Arena arena = Arena.ofConfined();
    final MemorySegment memory;
    final GuestMemory loaded = new GuestMemory("m0", PAGES);
    private final GuestMemory bios = new GuestMemory("pc.bios", BIOS_PAGES);
    final Qemu qemu;

    /** Open to the end: where more connections are made nobody answers them. */
    private final Socket listening = Socket.listen(new InetSocketAddress("127.0.0.1", 0));

    private Socket socket;

    /**
     * @param filled how many of its pages, from the first on, are filled with random bytes and
     *     zeros
     */
    Guest(Path folder, SplittableRandom random, long filled) throws Exception {
      Path backing = folder.resolve("backing");
      try (FileChannel file =
          FileChannel.open(
              backing,
              StandardOpenOption.CREATE,
              StandardOpenOption.READ,
              StandardOpenOption.WRITE)) {
        memory = file.map(MapMode.READ_WRITE, 0, BYTES, arena);
      }
      for (long page = 0; page < filled; page += random.nextInt(1, 4)) {
        loaded.randomize(random, page);
      }
      memory.copyFrom(loaded.block.memory());
      MemorySegment.copy(
          MemorySegment.ofArray(HexFormat.of().parseHex(CODE)),
          0,
          memory,
          0x1000,
          CODE.length() / 2);
      loaded.block.memory().fill((byte) 9);
      // Where the processor starts: a jump to the code.
      byte[] rom = new byte[(int) BIOS_PAGES * 4096];
      System.arraycopy(HexFormat.of().parseHex("ea00100000"), 0, rom, rom.length - 16, 5);
      Path romFile = Files.write(folder.resolve("bios"), rom);
      qemu =
          new Qemu(
              binary,
              folder,
              "-M",
              "microvm,memory-backend=m0,acpi=off,ioapic2=off,pit=off,pic=off,rtc=off,"
                  + "isa-serial=off,x-option-roms=off,auto-kernel-cmdline=off",
              "-cpu",
              "max",
              "-bios",
              romFile.toString(),
              "-object",
              "memory-backend-file,id=m0,size=64M,mem-path=" + backing + ",share=on",
              "-uuid",
              "2b0f7c1e-8a53-4a0c-9d1f-5e6a7b8c9d0e");
    }

    void turnOn(String capability) throws Exception {
      qemu.execute(
          "migrate-set-capabilities",
          "{\"capabilities\": [{\"capability\": \"%s\", \"state\": true}]}".formatted(capability));
    }

    void run() throws Exception {
      MemorySegment written = memory.asSlice(WRITTEN, WRITTEN_BYTES);
      byte[] before = written.toArray(JAVA_BYTE);
      qemu.execute("cont");
      long deadline = System.nanoTime() + Qemu.PATIENCE;
      while (written.mismatch(MemorySegment.ofArray(before)) < 0) {
        assertTrue(System.nanoTime() - deadline < 0, "the guest does not run: " + qemu.output());
        Thread.sleep(1);
      }
    }

    /** Has QEMU send the guest; what loads it. */
    StreamReader reader() throws Exception {
      qemu.execute(
          "migrate", "{\"uri\": \"tcp:127.0.0.1:" + listening.localAddress().getPort() + "\"}");
      socket = listening.accept();
      return new StreamReader(
          socket,
          "microvm",
          List.of(loaded.block, bios.block),
          List.of(
              section("fw_cfg", 2, 30),
              section("cpu_common", 1, 8),
              section("cpu", 12, 1889),
              section("kvm-tpr-opt", 1, 144),
              section("apic", 3, 181),
              section("ioapic", 3, 206)));
    }

    /** All three versions have them of the same lengths. */
    private static SectionHandler section(String name, int version, int bytes) {
      return SectionHandler.skipping(name, version, bytes);
    }

    @Override
    public void close() throws IOException {
      if (socket != null) {
        socket.close();
      }
      listening.close();
      qemu.close();
      loaded.close();
      bios.close();
      arena.close();
    }
  }
}
