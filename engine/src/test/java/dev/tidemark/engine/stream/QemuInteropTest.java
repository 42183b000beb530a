package dev.tidemark.engine.stream;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tidemark.ffm.Socket;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.nio.channels.FileChannel;
import java.nio.channels.FileChannel.MapMode;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.FutureTask;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** A real QEMU is the other side. */
@Timeout(120)
class QemuInteropTest {
  private static final long BYTES = 64 << 20;
  private static final long PAGES = BYTES / 4096;

  @TempDir Path folder;

  @BeforeAll
  static void needsQemu() {
    Qemu.assumeInstalled();
  }

  @Test
  void qemuLoadsWhatIsWrittenWhileMemoryChanges() throws Exception {
    SplittableRandom random = Seed.random();
    try (Qemu qemu = new Qemu(folder, "-M", "none", "-incoming", "tcp:127.0.0.1:0");
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
    try (Qemu qemu = new Qemu(folder, "-M", "none", "-incoming", "tcp:127.0.0.1:0");
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
            answers.awaitPong(pings[0], 30_000);
          };
      send(writer, memory, random, acknowledged);
      acknowledged.run();
      writer.eof();
      writer.description("{}");
      assertEquals(0, answers.awaitShut(30_000));
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
        Qemu qemu = new Qemu(folder, "-M", "none");
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
}
