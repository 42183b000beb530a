package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

@Timeout(60)
class SocketTest {
  private static final InetSocketAddress ANY_PORT = new InetSocketAddress("127.0.0.1", 0);

  private final Arena arena = Arena.ofShared();
  private Socket listener;
  private Socket out;
  private Socket in;

  @BeforeEach
  void connect() {
    listener = Socket.listen(ANY_PORT);
    out = Socket.connect(listener.localAddress());
    in = listener.accept();
  }

  @AfterEach
  void close() {
    out.close();
    in.close();
    listener.close();
    arena.close();
  }

  private Thread started;

  private <T> FutureTask<T> start(Callable<T> call) {
    FutureTask<T> task = new FutureTask<>(call);
    started = new Thread(task);
    started.setDaemon(true);
    started.start();
    return task;
  }

  private IoVectors vectors(MemorySegment... pieces) {
    IoVectors vectors = new IoVectors(arena, Math.max(1, pieces.length));
    for (MemorySegment piece : pieces) {
      vectors.add(piece.address(), piece.byteSize());
    }
    return vectors;
  }

  @Test
  void piecesArriveInOrderAndMayBeScattered() {
    MemorySegment source = arena.allocate(30);
    for (int i = 0; i < 30; i++) {
      source.set(JAVA_BYTE, i, (byte) i);
    }
    IoVectors sent = vectors(source.asSlice(20, 10), source.asSlice(0, 5), source.asSlice(5, 15));
    assertEquals(30, sent.remaining());
    assertEquals(0, sent.room());
    assertEquals(1, out.writeFully(sent));
    assertEquals(0, sent.remaining());

    MemorySegment target = arena.allocate(30);
    IoVectors received =
        vectors(target.asSlice(20, 10), target.asSlice(0, 5), target.asSlice(5, 15));
    while (received.remaining() > 0) {
      assertTrue(in.read(received) > 0);
    }
    assertEquals(-1, source.mismatch(target));
  }

  @Test
  void whatGoesToThisSameHostIsNotPaced() throws Exception {
    assertEquals("reno", congestionControl(out));
    String usual = Files.readString(Path.of("/proc/sys/net/ipv4/tcp_congestion_control")).strip();
    assertEquals(usual, congestionControl(in));
  }

  @SuppressWarnings("restricted")
  private String congestionControl(Socket socket) throws Exception {
    int ipprotoTcp = 6;
    int tcpCongestion = 13;
    MemorySegment name = arena.allocate(16);
    MemorySegment length = arena.allocateFrom(JAVA_INT, 16);
    Linker linker = Linker.nativeLinker();
    MethodHandle getsockopt =
        linker.downcallHandle(
            linker.defaultLookup().find("getsockopt").orElseThrow(),
            FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, ADDRESS, ADDRESS));
    int number = socket.fd().acquire();
    try {
      return (int) getsockopt.invokeExact(number, ipprotoTcp, tcpCongestion, name, length) == 0
          ? name.getString(0)
          : "getsockopt failed";
    } catch (Throwable e) {
      throw new AssertionError(e);
    } finally {
      socket.fd().release();
    }
  }

  @Test
  void readsOfAnySizeResumeWhereTheKernelStopped() throws Exception {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    System.out.println("tidemark.seed=" + seed);
    Random random = new Random(seed);
    int bytes = 24 << 20;
    MemorySegment source = arena.allocate(bytes);
    byte[] content = new byte[bytes];
    random.nextBytes(content);
    MemorySegment.copy(content, 0, source, JAVA_BYTE, 0, bytes);
    MemorySegment target = arena.allocate(bytes);

    FutureTask<Integer> writer =
        start(
            () -> {
              IoVectors vectors = new IoVectors(arena, IoVectors.MAX);
              Random sizes = new Random(seed + 1);
              int calls = 0;
              for (long at = 0; at < bytes; ) {
                vectors.clear();
                while (vectors.room() > 0 && at < bytes) {
                  long piece = Math.min(1 + sizes.nextInt(20_000), bytes - at);
                  vectors.add(source.address() + at, piece);
                  at += piece;
                }
                calls += out.writeFully(vectors);
              }
              out.shutdownOutput();
              return calls;
            });
    IoVectors vectors = new IoVectors(arena, 64);
    long read = 0;
    for (long at = 0; at < bytes || vectors.remaining() > 0; ) {
      if (vectors.remaining() == 0) {
        vectors.clear();
        while (vectors.room() > 0 && at < bytes) {
          long piece = Math.min(1 + random.nextInt(30_000), bytes - at);
          vectors.add(target.address() + at, piece);
          at += piece;
        }
      }
      long moved = in.read(vectors);
      assertTrue(moved > 0);
      read += moved;
    }
    assertEquals(bytes, read);
    assertEquals(0, in.read(target, 1), "the end of the stream");
    writer.get();
    assertEquals(-1, source.mismatch(target));
  }

  /** A blocking writev stops early only at memory that is not there, or for a signal. */
  @Test
  void aWriteThatTheKernelCutShortGoesOnWithTheRest() throws Exception {
    long good = 1 << 20;
    try (Mapping guarded = Mapping.guarded(good)) {
      MemorySegment memory = guarded.segment();
      for (long i = 0; i < good; i++) {
        memory.set(JAVA_BYTE, i, (byte) (i * 31 >> 7));
      }
      MemorySegment arrived = arena.allocate(good + 1);
      FutureTask<Long> reader =
          start(
              () -> {
                long all = 0;
                for (long n = 1; n > 0; all += n) {
                  n = in.read(arrived.asSlice(all), arrived.byteSize() - all);
                }
                return all;
              });
      IoVectors vectors = new IoVectors(arena, 3);
      vectors.add(memory.address(), 1000);
      vectors.add(memory.address() + 1000, good - 1000 + 10);
      vectors.add(memory.address(), 20);
      var refused = assertThrows(LinuxException.class, () -> out.writeFully(vectors));
      assertEquals(Errno.EFAULT, refused.errno());
      out.shutdownOutput();
      long bytes = reader.get();
      assertTrue(bytes > 1000 && bytes <= good, bytes + " bytes");
      assertEquals(good + 10 + 20 - bytes, vectors.remaining());
      assertEquals(-1, arrived.asSlice(0, bytes).mismatch(memory.asSlice(0, bytes)));
      assertEquals(memory.address() + bytes, pending(vectors, 0));
    }
  }

  @Test
  void vectorsResumeAtAnyByte() {
    long seed = Long.getLong("tidemark.seed", System.nanoTime());
    System.out.println("tidemark.seed=" + seed);
    Random random = new Random(seed);
    IoVectors vectors = new IoVectors(arena, 16);
    for (int round = 0; round < 2_000; round++) {
      vectors.clear();
      List<Long> left = new ArrayList<>();
      long address = 4096;
      for (int i = 1 + random.nextInt(16); i > 0; i--) {
        long bytes = 1 + random.nextInt(9);
        vectors.add(address, bytes);
        for (long b = 0; b < bytes; b++) {
          left.add(address + b);
        }
        address += bytes + random.nextInt(3);
      }
      while (!left.isEmpty()) {
        int moved = random.nextInt(left.size() + 1);
        vectors.advance(moved);
        left.subList(0, moved).clear();
        assertEquals(left, bytes(vectors), () -> "seed " + seed);
        assertEquals(left.size(), vectors.remaining());
      }
      assertEquals(0, vectors.pendingCount());
    }
  }

  /** A word of the elements that are still to move. */
  private static long pending(IoVectors vectors, int word) {
    return vectors.array.get(JAVA_LONG, 8L * word + vectors.pending() - vectors.array.address());
  }

  /** The address of every byte that is still to move, in order. */
  private static List<Long> bytes(IoVectors vectors) {
    List<Long> bytes = new ArrayList<>();
    for (int i = 0; i < vectors.pendingCount(); i++) {
      long base = pending(vectors, 2 * i);
      long length = pending(vectors, 2 * i + 1);
      for (long b = 0; b < length; b++) {
        bytes.add(base + b);
      }
    }
    return bytes;
  }

  @Test
  void theEndOfTheStreamIsZeroAgainAndAgain() {
    MemorySegment buffer = arena.allocate(8);
    out.writeFully(vectors(buffer));
    out.shutdownOutput();
    assertEquals(8, in.read(buffer, 8));
    assertEquals(0, in.read(buffer, 8));
    assertEquals(0, in.read(vectors(buffer)));
    assertTrue(in.awaitReadable(0), "an end can be read");
    in.writeFully(vectors(buffer));
    assertEquals(8, out.read(buffer, 8), "the other direction goes on");
  }

  @Test
  void nothingToReadIntoIsNotTheEndOfTheStream() {
    assertThrows(IllegalArgumentException.class, () -> in.read(vectors()));
    MemorySegment buffer = arena.allocate(8);
    assertThrows(IndexOutOfBoundsException.class, () -> in.read(buffer, 0));
    assertThrows(IndexOutOfBoundsException.class, () -> in.read(buffer, 9));
  }

  @Test
  void writingNothingTakesNoCall() {
    assertEquals(0, out.writeFully(vectors()));
  }

  @Test
  void writingToAPeerThatIsGoneFails() {
    in.close();
    MemorySegment buffer = arena.allocate(1 << 16);
    var refused =
        assertThrows(
            LinuxException.class,
            () -> {
              while (true) {
                out.writeFully(vectors(buffer));
              }
            });
    assertTrue(
        refused.errno() == Errno.EPIPE || refused.errno() == Errno.ECONNRESET,
        refused.getMessage());
    var again = assertThrows(LinuxException.class, () -> out.writeFully(vectors(buffer)));
    assertEquals(Errno.EPIPE, again.errno());
    assertTrue(again.getMessage().contains("is the other side gone?"), again.getMessage());
  }

  @Test
  void aPortInUseIsRefusedWithItsNumber() {
    InetSocketAddress taken = listener.localAddress();
    var refused = assertThrows(LinuxException.class, () -> Socket.listen(taken));
    assertEquals(Errno.EADDRINUSE, refused.errno());
    assertTrue(
        refused.getMessage().contains("bind(127.0.0.1:" + taken.getPort() + ")"),
        refused.getMessage());
  }

  @Test
  void aPortWhereNobodyListensIsRefused() {
    InetSocketAddress address = listener.localAddress();
    listener.close();
    var refused = assertThrows(LinuxException.class, () -> Socket.connect(address));
    assertEquals(Errno.ECONNREFUSED, refused.errno());
  }

  @Test
  void aPortIsFreeAgainAsSoonAsItsListenerIsClosed() {
    InetSocketAddress address = listener.localAddress();
    in.close();
    out.close();
    listener.close();
    Socket.listen(address).close();
  }

  @Test
  void shutdownWakesABlockedReader() throws Exception {
    MemorySegment buffer = arena.allocate(8);
    FutureTask<Long> reader = start(() -> in.read(buffer, 8));
    InCall.await(started, "read");
    in.shutdown();
    assertEquals(0L, reader.get());
  }

  @Test
  void shutdownWakesABlockedWriter() throws Exception {
    MemorySegment buffer = arena.allocate(1 << 20);
    FutureTask<Void> writer =
        start(
            () -> {
              while (true) {
                out.writeFully(vectors(buffer));
              }
            });
    InCall.await(started, "writev");
    out.shutdown();
    var failed = assertThrows(ExecutionException.class, writer::get).getCause();
    assertEquals(Errno.EPIPE, ((LinuxException) failed).errno());
  }

  @Test
  void shutdownWakesABlockedAcceptor() throws Exception {
    FutureTask<Socket> acceptor = start(listener::accept);
    InCall.await(started, "accept4");
    listener.shutdown();
    var failed = assertThrows(ExecutionException.class, acceptor::get).getCause();
    assertEquals(Errno.EINVAL, ((LinuxException) failed).errno());
  }

  @Test
  void shutdownOfAConnectionThatIsGoneIsNoError() {
    in.close();
    out.shutdown();
    out.shutdown();
  }

  @Test
  void waitingEndsWithBytesOrWithTheTime() {
    assertFalse(in.awaitReadable(0));
    assertFalse(in.awaitReadable(1));
    MemorySegment buffer = arena.allocate(1);
    out.writeFully(vectors(buffer));
    assertTrue(in.awaitReadable(30_000));
    assertThrows(IllegalArgumentException.class, () -> in.awaitReadable(-1));
  }

  @Test
  void useAfterCloseIsRefused() {
    MemorySegment buffer = arena.allocate(8);
    in.close();
    in.close();
    assertThrows(ClosedException.class, () -> in.read(buffer, 8));
    assertThrows(ClosedException.class, () -> in.read(vectors(buffer)));
    assertThrows(ClosedException.class, () -> in.writeFully(vectors(buffer)));
    assertThrows(ClosedException.class, in::shutdown);
    assertThrows(ClosedException.class, in::localAddress);
    assertThrows(ClosedException.class, () -> in.awaitReadable(0));
    listener.close();
    assertThrows(ClosedException.class, listener::accept);
  }

  @Test
  void aBorrowedSocketStaysOpen() {
    int number = out.fd().acquire();
    try (Socket borrowed = Socket.borrow(number)) {
      assertEquals(out.localAddress(), borrowed.localAddress());
    } finally {
      out.fd().release();
    }
    MemorySegment buffer = arena.allocate(8);
    out.writeFully(vectors(buffer));
    assertEquals(8, in.read(buffer, 8));
  }

  @Test
  void anAddressThatIsNotIpv4IsRefused() {
    assertThrows(
        IllegalArgumentException.class, () -> Socket.listen(new InetSocketAddress("::1", 0)));
    assertThrows(
        IllegalArgumentException.class,
        () -> Socket.connect(InetSocketAddress.createUnresolved("nowhere.invalid", 1)));
  }

  @Test
  void vectorsCountAndRefuse() {
    IoVectors vectors = new IoVectors(arena, 2);
    assertEquals(2, vectors.room());
    vectors.add(4096, 1);
    vectors.add(8192, 2);
    assertEquals(3, vectors.remaining());
    assertThrows(IllegalStateException.class, () -> vectors.add(0, 1));
    vectors.clear();
    assertEquals(0, vectors.remaining());
    assertThrows(IllegalArgumentException.class, () -> vectors.add(4096, 0));
    assertThrows(IllegalArgumentException.class, () -> vectors.add(4096, -1));
    assertEquals(2, vectors.room());
    assertThrows(IllegalArgumentException.class, () -> new IoVectors(arena, 0));
    assertThrows(IllegalArgumentException.class, () -> new IoVectors(arena, IoVectors.MAX + 1));
  }

  @Test
  void memoryThatIsNotThereIsAnErrorOfTheCall() {
    IoVectors bad = new IoVectors(arena, 1);
    bad.add(1, 8);
    var refused = assertThrows(LinuxException.class, () -> out.writeFully(bad));
    assertEquals(Errno.EFAULT, refused.errno());
  }

  @Test
  void movingBytesAllocatesNothing() {
    MemorySegment buffer = arena.allocate(64);
    IoVectors vectors = new IoVectors(arena, 2);
    Runnable gatherAndScatter =
        () -> {
          vectors.clear();
          vectors.add(buffer.address(), 32);
          vectors.add(buffer.address() + 32, 32);
          out.writeFully(vectors);
          vectors.clear();
          vectors.add(buffer.address(), 24);
          vectors.add(buffer.address() + 24, 40);
          while (vectors.remaining() > 0) {
            in.read(vectors);
          }
        };
    assertEquals(0, Allocations.perRun(gatherAndScatter));
    Runnable plain =
        () -> {
          vectors.clear();
          vectors.add(buffer.address(), 64);
          out.writeFully(vectors);
          for (long left = 64; left > 0; ) {
            left -= in.read(buffer, left);
          }
        };
    assertEquals(0, Allocations.perRun(plain));
  }
}
