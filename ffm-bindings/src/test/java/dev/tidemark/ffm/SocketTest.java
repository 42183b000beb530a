package dev.tidemark.ffm;

import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.tidemark.ffm.internal.Libc;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.function.Executable;
import org.junit.jupiter.api.io.TempDir;

@Timeout(300)
class SocketTest {
  private static final int SOL_SOCKET = 1;
  private static final int IPPROTO_TCP = 6;
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
      vectors.add(piece);
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

  private String congestionControl(Socket socket) {
    return option(socket, IPPROTO_TCP, 13, 16).getString(0);
  }

  /** The value that the kernel has for an option. */
  private MemorySegment option(Socket socket, int level, int option, int bytes) {
    MemorySegment value = arena.allocate(bytes, 8);
    MemorySegment length = arena.allocateFrom(JAVA_INT, bytes);
    int number = socket.fd().acquire();
    try {
      assertEquals(0, Libc.getsockopt(number, level, option, value, length));
      return value;
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
                  vectors.add(source, at, piece);
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
          vectors.add(target, at, piece);
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
  void closeWakesABlockedReader() throws Exception {
    MemorySegment buffer = arena.allocate(8);
    FutureTask<Long> reader = start(() -> in.read(buffer, 8));
    InCall.await(started, "read");
    in.close();
    assertEndsByClose(reader);
  }

  @Test
  void closeWakesABlockedScatteringReader() throws Exception {
    IoVectors vectors = vectors(arena.allocate(8));
    FutureTask<Long> reader = start(() -> in.read(vectors));
    InCall.await(started, "readv");
    in.close();
    assertEndsByClose(reader);
  }

  @Test
  void closeWakesABlockedWriter() throws Exception {
    IoVectors vectors = vectors(arena.allocate(64 << 20));
    FutureTask<Integer> writer = start(() -> out.writeFully(vectors));
    InCall.await(started, "writev");
    out.close();
    assertEndsByClose(writer);
  }

  @Test
  void closeWakesABlockedAcceptor() throws Exception {
    FutureTask<Socket> acceptor = start(listener::accept);
    InCall.await(started, "accept4");
    listener.close();
    assertEndsByClose(acceptor);
  }

  private static void assertEndsByClose(FutureTask<?> call) {
    ExecutionException e =
        assertThrows(ExecutionException.class, () -> call.get(60, TimeUnit.SECONDS));
    assertInstanceOf(ClosedException.class, e.getCause());
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
  void aHostThatWasNotResolvedIsSaidToBeUnresolvable() {
    InetSocketAddress nowhere = InetSocketAddress.createUnresolved("nowhere.invalid", 1);
    for (Executable call :
        List.<Executable>of(
            () -> Socket.listen(nowhere),
            () -> Socket.listenPlaintext(nowhere),
            () -> Socket.connect(nowhere),
            () -> Socket.connectPlaintext(nowhere, Duration.ofSeconds(1)))) {
      var refused = assertThrows(IllegalArgumentException.class, call);
      assertEquals("the host name 'nowhere.invalid' cannot be resolved", refused.getMessage());
    }
  }

  @Test
  void onlyThePlaintextCallsLeaveThisHost() {
    InetSocketAddress all = new InetSocketAddress("0.0.0.0", 0);
    var refused = assertThrows(IllegalArgumentException.class, () -> Socket.listen(all));
    assertTrue(refused.getMessage().contains("listenPlaintext"), refused.getMessage());
    for (String elsewhere : List.of("192.0.2.1", "0.0.0.0", "2001:db8::1", "::")) {
      var address = new InetSocketAddress(elsewhere, 1);
      refused = assertThrows(IllegalArgumentException.class, () -> Socket.connect(address));
      assertTrue(refused.getMessage().contains("connectPlaintext"), refused.getMessage());
    }
    try (Socket open = Socket.listenPlaintext(all);
        Socket near =
            Socket.connectPlaintext(
                new InetSocketAddress("127.0.0.1", open.localAddress().getPort()),
                Duration.ofSeconds(30));
        Socket far = open.accept()) {
      assertTrue(open.localAddress().getAddress().isAnyLocalAddress());
      assertEquals("connection from " + text(near.localAddress()), far.fd().label());
    }
  }

  private static String text(InetSocketAddress address) {
    return address.getHostString() + ":" + address.getPort();
  }

  @Test
  void ipv6LoopbackWorksAsWell() throws Exception {
    assumeTrue(
        Files.exists(Path.of("/proc/net/if_inet6"))
            && Files.readString(Path.of("/proc/net/if_inet6")).contains(" lo"),
        "the loopback device has no IPv6 address");
    MemorySegment bytes = arena.allocateFrom("tide");
    try (Socket six = Socket.listen(new InetSocketAddress("::1", 0));
        Socket near = Socket.connect(six.localAddress());
        Socket far = six.accept()) {
      assertEquals("reno", congestionControl(near));
      int port = six.localAddress().getPort();
      assertTrue(six.localAddress().getAddress().isLoopbackAddress());
      assertEquals("connection to [0:0:0:0:0:0:0:1]:" + port, near.fd().label());
      assertEquals("listener at [0:0:0:0:0:0:0:1]:" + port, six.fd().label());
      near.writeFully(vectors(bytes));
      MemorySegment target = arena.allocate(5);
      assertEquals(5, far.read(target, 5));
      assertEquals("tide", target.getString(0));
    }
  }

  /** A listener whose queue is full drops what asks for a connection, like a host that is down. */
  @Test
  void connectGivesUpAtItsLimit() {
    InetSocketAddress address = listener.localAddress();
    List<Socket> queued = new ArrayList<>();
    try {
      var late =
          assertThrows(
              LinuxException.class,
              () -> {
                while (queued.size() < 100) {
                  queued.add(Socket.connect(address, Duration.ofMillis(300)));
                }
              });
      assertEquals(Errno.ETIMEDOUT, late.errno());
      assertTrue(late.getMessage().contains("no answer for 300 ms"), late.getMessage());
    } finally {
      queued.forEach(Socket::close);
    }
  }

  @Test
  void limitsMustBeAboveZeroAndMayBeCenturies() {
    Duration ever = Duration.ofSeconds(Long.MAX_VALUE);
    for (Duration bad : List.of(Duration.ZERO, Duration.ofNanos(-1))) {
      assertThrows(IllegalArgumentException.class, () -> in.limitWaits(bad));
      assertThrows(
          IllegalArgumentException.class, () -> Socket.connect(listener.localAddress(), bad));
    }
    assertTrue(in.limitWaits(ever));
    Socket.connect(listener.localAddress(), ever).close();
    MemorySegment bytes = arena.allocate(8);
    out.writeFully(vectors(bytes));
    assertEquals(8, in.read(bytes, 8));
    // The shortest must not become the kernel's 0, which is none.
    assertTrue(in.limitWaits(Duration.ofNanos(1)));
    assertNothingMoved(() -> in.read(bytes, 8));
    assertTrue(in.limitWaits(Duration.ofNanos(999_999_999)));
    MemorySegment time = option(in, SOL_SOCKET, 20, 16);
    assertEquals(1, time.get(JAVA_LONG, 0), "seconds, rounded up");
  }

  private static void assertNothingMoved(Executable call) {
    var stuck = assertThrows(LinuxException.class, call);
    assertEquals(Errno.EAGAIN, stuck.errno());
    assertTrue(stuck.getMessage().contains("nothing moved for "), stuck.getMessage());
  }

  @Test
  void callsThatMoveNothingForTheirLimitThrowAndCanBeMadeAgain() {
    Duration limit = Duration.ofMillis(50);
    MemorySegment bytes = arena.allocate(1 << 20);
    assertTrue(in.limitWaits(limit));
    assertNothingMoved(() -> in.read(bytes, 8));
    IoVectors into = vectors(bytes.asSlice(0, 8));
    assertNothingMoved(() -> in.read(into));
    out.writeFully(vectors(bytes.asSlice(0, 8)));
    assertEquals(8, in.read(into));

    assertTrue(out.limitWaits(limit));
    IoVectors from = vectors(bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes);
    long sent = 0;
    while (from.remaining() > 0) {
      long before = from.remaining();
      try {
        out.writeFully(from);
      } catch (LinuxException e) {
        assertEquals(Errno.EAGAIN, e.errno());
        sent += before - from.remaining();
        // What was not read keeps the writer from going on; so it is read here.
        for (; sent > 0; sent -= in.read(bytes, Math.min(sent, bytes.byteSize()))) {}
      }
    }

    assertTrue(listener.limitWaits(limit));
    assertNothingMoved(listener::accept);
    try (Socket near = Socket.connect(listener.localAddress());
        Socket far = listener.accept()) {
      assertEquals(0, option(far, SOL_SOCKET, 20, 16).get(JAVA_LONG, 8), "is not inherited");
      assertEquals(0, option(far, SOL_SOCKET, 21, 16).get(JAVA_LONG, 8), "is not inherited");
      assertFalse(near.toString().isEmpty());
    }
  }

  /** Each signal ends the call early, and the next one would wait for the whole limit again. */
  @Test
  void signalsDoNotPutOffTheLimit() throws Exception {
    int sigpipe = 13; // The JVM has a handler for it that does nothing.
    MemorySegment bytes = arena.allocate(8);
    assertTrue(in.limitWaits(Duration.ofMillis(300)));
    var reader = new AtomicInteger();
    FutureTask<Long> read =
        start(
            () -> {
              reader.set(Libc.gettid());
              return in.read(bytes, 8);
            });
    InCall.await(started, "read");
    while (!read.isDone()) {
      Libc.tgkill(Libc.getpid(), reader.get(), sigpipe);
      Thread.sleep(20);
    }
    var stuck = (LinuxException) assertThrows(ExecutionException.class, read::get).getCause();
    assertEquals(Errno.EAGAIN, stuck.errno());
  }

  @Test
  void whatIsNoSocketHasNoLimit() {
    try (Fd file = Fd.open("/dev/null", Fd.O_RDWR)) {
      int number = file.acquire();
      try {
        assertFalse(Socket.borrow(number).limitWaits(Duration.ofSeconds(1)));
      } finally {
        file.release();
      }
    }
  }

  @Test
  void aPeerThatVanishedIsNoticedWithinAMinute() {
    for (Socket end : List.of(out, in)) {
      assertEquals(1, option(end, IPPROTO_TCP, 1, 4).get(JAVA_INT, 0), "TCP_NODELAY");
      assertEquals(1, option(end, SOL_SOCKET, 9, 4).get(JAVA_INT, 0), "SO_KEEPALIVE");
      int idle = option(end, IPPROTO_TCP, 4, 4).get(JAVA_INT, 0);
      int interval = option(end, IPPROTO_TCP, 5, 4).get(JAVA_INT, 0);
      int count = option(end, IPPROTO_TCP, 6, 4).get(JAVA_INT, 0);
      assertEquals(60, idle + count * interval);
      assertEquals(60_000, option(end, IPPROTO_TCP, 18, 4).get(JAVA_INT, 0), "TCP_USER_TIMEOUT");
    }
  }

  @Test
  void aUnixSocketIsForThisUserAndGoesWithItsListener(@TempDir Path folder) throws Exception {
    Path path = folder.resolve("in");
    MemorySegment bytes = arena.allocateFrom("tide");
    try (Socket unix = Socket.listen(path)) {
      assertEquals("rw-------", PosixFilePermissions.toString(Files.getPosixFilePermissions(path)));
      assertTrue(unix.toString().startsWith("listener at " + path), unix.toString());
      assertThrows(IllegalStateException.class, unix::localAddress);
      try (Socket near = Socket.connect(path);
          Socket far = unix.accept()) {
        assertTrue(near.toString().startsWith("connection to " + path), near.toString());
        near.writeFully(vectors(bytes));
        MemorySegment target = arena.allocate(5);
        assertEquals(5, far.read(target, 5));
        assertEquals("tide", target.getString(0));
        int uid = (int) Files.getAttribute(path, "unix:uid");
        for (Socket end : List.of(near, far)) {
          assertEquals(ProcessHandle.current().pid(), end.peer().pid());
          assertEquals(uid, end.peer().uid());
          assertTrue(end.peer().isThisUser());
        }
        assertFalse(new Socket.Peer(1, uid + 1, 1).isThisUser());
        assertTrue(far.limitWaits(Duration.ofMillis(20)));
        assertNothingMoved(() -> far.read(target, 5));
      }
      var taken = assertThrows(LinuxException.class, () -> Socket.listen(path));
      assertEquals(Errno.EADDRINUSE, taken.errno());
      assertTrue(Files.exists(path), "the file of the listener that is there");
    }
    assertFalse(Files.exists(path));
    var refused = assertThrows(LinuxException.class, () -> Socket.connect(path));
    assertEquals(Errno.ENOENT, refused.errno());
    assertTrue(refused.getMessage().contains("start the receiver first"), refused.getMessage());
  }

  @Test
  void aListenerThatLeavesRemovesNobodyElsesFile(@TempDir Path folder) throws Exception {
    Path path = folder.resolve("in");
    Socket first = Socket.listen(path);
    Files.delete(path);
    Socket second = Socket.listen(path);
    first.close();
    assertTrue(Files.exists(path));
    Socket.connect(path).close();
    second.accept().close();
    second.close();
    second.close();
    assertFalse(Files.exists(path));
  }

  @Test
  void aPathThatIsTooLongIsRefused(@TempDir Path folder) {
    Path path = folder.resolve("x".repeat(108));
    assertThrows(IllegalArgumentException.class, () -> Socket.listen(path));
    assertThrows(IllegalArgumentException.class, () -> Socket.connect(path));
  }

  @Test
  void ofATcpConnectionNobodyKnowsThePeer() {
    assertThrows(IllegalStateException.class, out::peer);
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
  void vectorsPointOnlyToMemoryThatTheirCallerHas() {
    IoVectors vectors = new IoVectors(arena, 4);
    MemorySegment memory = arena.allocate(64);
    for (long[] wrong : new long[][] {{-1, 1}, {0, 65}, {64, 1}, {1, Long.MAX_VALUE}, {0, -1}}) {
      assertThrows(IndexOutOfBoundsException.class, () -> vectors.add(memory, wrong[0], wrong[1]));
    }
    assertThrows(IllegalArgumentException.class, () -> vectors.add(memory, 0, 0));
    assertThrows(NullPointerException.class, () -> vectors.add(null));
    assertThrows(IndexOutOfBoundsException.class, () -> vectors.add(MemorySegment.NULL, 0, 8));
    assertThrows(
        IllegalArgumentException.class, () -> vectors.add(MemorySegment.ofArray(new byte[8])));
    assertEquals(0, vectors.remaining());
    assertEquals(4, vectors.room());
  }

  @Test
  void lengthsThatAddUpToMoreThanALongAreRefused() {
    IoVectors vectors = new IoVectors(arena, 2);
    vectors.add(4096, Long.MAX_VALUE);
    assertThrows(ArithmeticException.class, () -> vectors.add(4096, 1));
    assertEquals(Long.MAX_VALUE, vectors.remaining());
    assertEquals(1, vectors.room());
  }

  @Test
  void memoryOfAClosedArenaIsNeitherWrittenNorRead() {
    MemorySegment alive = arena.allocate(8);
    out.writeFully(vectors(alive));
    Arena gone = Arena.ofConfined();
    IoVectors some = new IoVectors(arena, 4);
    some.add(alive);
    some.add(gone.allocate(8));
    some.add(alive);
    some.add(alive);
    IoVectors itself = new IoVectors(gone, 1);
    itself.add(alive);
    gone.close();
    for (IoVectors bad : List.of(some, itself)) {
      assertThrows(IllegalStateException.class, () -> out.writeFully(bad));
      assertThrows(IllegalStateException.class, () -> in.read(bad));
    }
    some.clear();
    some.add(alive);
    assertEquals(8, in.read(some), "what was cleared counts no more");
  }

  @Test
  void eachOfManyPiecesIsKeptAlive() {
    Arena[] arenas = new Arena[5];
    for (int closed = 0; closed < arenas.length; closed++) {
      IoVectors vectors = new IoVectors(arena, 12);
      MemorySegment[] pieces = new MemorySegment[arenas.length];
      for (int i = 0; i < arenas.length; i++) {
        arenas[i] = Arena.ofConfined();
        pieces[i] = arenas[i].allocate(8);
      }
      for (int i = 0; i < 12; i++) {
        vectors.add(pieces[i % arenas.length], i % 2, 4);
      }
      assertEquals(pieces[1].address() + 1, pending(vectors, 2), "the second one");
      arenas[closed].close();
      assertThrows(IllegalStateException.class, () -> out.writeFully(vectors));
      for (Arena other : arenas) {
        if (other.scope().isAlive()) {
          other.close();
        }
      }
    }
  }

  @Test
  void readOnlyMemoryIsWrittenOutButNotReadInto() {
    MemorySegment memory = arena.allocate(8);
    IoVectors readOnly = vectors(memory.asReadOnly());
    assertThrows(IllegalArgumentException.class, () -> in.read(readOnly));
    assertThrows(IllegalArgumentException.class, () -> in.read(memory.asReadOnly(), 8));
    out.writeFully(readOnly);
    readOnly.clear();
    readOnly.add(memory);
    assertEquals(8, in.read(readOnly));
  }

  @Test
  void memoryThatIsNotThereIsAnErrorOfTheCall() {
    IoVectors bad = new IoVectors(arena, 1);
    bad.add(1, 8);
    var refused = assertThrows(LinuxException.class, () -> out.writeFully(bad));
    assertEquals(Errno.EFAULT, refused.errno());
  }

  @Test
  void movingBytesAllocatesNoMoreThanItsCalls() {
    MemorySegment buffer = arena.allocate(64);
    IoVectors vectors = new IoVectors(arena, 2);
    // So few bytes go through in one call at each end.
    long twoCalls = 2 * Allocations.PER_CALL;
    Runnable gatherAndScatter =
        () -> {
          vectors.clear();
          vectors.add(buffer, 0, 32);
          vectors.add(buffer, 32, 32);
          out.writeFully(vectors);
          vectors.clear();
          vectors.add(buffer, 0, 24);
          vectors.add(buffer, 24, 40);
          while (vectors.remaining() > 0) {
            in.read(vectors);
          }
        };
    long gathered = Allocations.perRun(gatherAndScatter);
    assertTrue(gathered <= twoCalls, gathered + " bytes");
    Runnable plain =
        () -> {
          vectors.clear();
          vectors.add(buffer);
          out.writeFully(vectors);
          for (long left = 64; left > 0; ) {
            left -= in.read(buffer, left);
          }
        };
    long moved = Allocations.perRun(plain);
    assertTrue(moved <= twoCalls, moved + " bytes");
  }
}
