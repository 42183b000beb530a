package dev.tidemark.bench.hot;

import static org.junit.jupiter.api.Assertions.assertEquals;

import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class OtherJvmTest {
  @ParameterizedTest
  @CsvSource({
    "true, --add-modules=jdk.incubator.vector",
    "true, --enable-native-access=ALL-UNNAMED",
    "true, --illegal-native-access=deny",
    "true, -XX:CompileCommand=quiet",
    "true, '-XX:CompileCommand=dontinline,dev.tidemark.engine.bitmap.VectorRuns::listRest'",
    "true, -Dtidemark.vector=forbid",
    "true, -Xmx512m",
    "true, -XX:+UseSerialGC",
    "true, -XX:TieredStopAtLevel=1",
    "true, -Djava.lang.invoke.MethodHandle.CUSTOMIZE_THRESHOLD=-1",
    "false, -Xlog:gc*",
    "false, -verbose:gc",
    "false, -XX:StartFlightRecording",
    "false, '-XX:CompileCommand=print,*::*'",
    "false, -XX:+PrintCompilation",
    "false, -XX:+PrintFlagsFinal",
    "false, '-agentlib:jdwp=transport=dt_socket,server=y,address=127.0.0.1:0'",
    "false, -javaagent:agent.jar",
    "false, -Dcom.sun.management.jmxremote.port=7091",
    "false, -Duser.language=ar"
  })
  void passesOnWhatIsComputedWithAndNothingThatPrintsOrListens(boolean passed, String flag) {
    assertEquals(passed, OtherJvm.passedOn(flag));
  }
}
