// A process with Hadoop's client, and the core-site.xml of its class path. Until its standard input ends, it
// logs in from the ccache, calls a server of Hadoop's RPC, and uses the ticket of its login, as
// JDBC drivers do. Arguments: the principal of the server, which it runs itself, and the server's keytab.

import java.net.InetSocketAddress;
import java.security.PrivilegedExceptionAction;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.ipc.ProtocolSignature;
import org.apache.hadoop.ipc.RPC;
import org.apache.hadoop.ipc.VersionedProtocol;
import org.apache.hadoop.security.KerberosInfo;
import org.apache.hadoop.security.UserGroupInformation;

public class HadoopReader {
    @KerberosInfo(serverPrincipal = "test.principal")
    public interface Names extends VersionedProtocol {
        long versionID = 1;

        String caller() throws Exception;
    }

    public static class Server implements Names {
        @Override
        public String caller() throws Exception {
            return UserGroupInformation.getCurrentUser().getUserName();
        }

        @Override
        public long getProtocolVersion(String protocol, long version) {
            return versionID;
        }

        @Override
        public ProtocolSignature getProtocolSignature(String protocol, long version, int methods) {
            return new ProtocolSignature(versionID, null);
        }
    }

    public static void main(String[] arguments) throws Exception {
        String service = arguments[0];
        Configuration conf = new Configuration();
        conf.set("hadoop.security.authentication", "kerberos");
        conf.set("test.principal", service);
        // The tickets of a test last for seconds.
        conf.set("hadoop.kerberos.min.seconds.before.relogin", "1");
        UserGroupInformation.setConfiguration(conf);
        UserGroupInformation server = UserGroupInformation.loginUserFromKeytabAndReturnUGI(service, arguments[1]);
        InetSocketAddress address = server.doAs((PrivilegedExceptionAction<InetSocketAddress>) () -> serve(conf));
        String user = UserGroupInformation.getLoginUser().getUserName();
        CcacheReader.repeat(() -> {
            String ccache = System.getenv("KRB5CCNAME");
            equal(user, UserGroupInformation.getUGIFromTicketCache(ccache, null).getUserName());
            try {
                useOwnTicket(service);
            } finally {
                Names names = RPC.getProxy(Names.class, Names.versionID, address, conf);
                equal(user, names.caller());
                RPC.stopProxy(names);
            }
        });
    }

    static InetSocketAddress serve(Configuration conf) throws Exception {
        RPC.Server server = new RPC.Builder(conf).setProtocol(Names.class).setInstance(new Server())
            .setBindAddress("localhost").setPort(0).build();
        server.start();
        return new InetSocketAddress("localhost", server.getListenerAddress().getPort());
    }

    // Tries twice: while Hadoop logs in again, the login has no ticket for some milliseconds.
    static void useOwnTicket(String service) throws Exception {
        UserGroupInformation login = UserGroupInformation.getLoginUser();
        PrivilegedExceptionAction<byte[]> action = () -> CcacheReader.token(service);
        try {
            login.doAs(action);
        } catch (Exception error) {
            Thread.sleep(500);
            try {
                login.doAs(action);
            } catch (Exception again) {
                throw new IllegalStateException("the ticket of the login has expired", again);
            }
        }
    }

    static void equal(String expected, String found) {
        if (!expected.equals(found)) {
            throw new IllegalStateException(found + " is not " + expected);
        }
    }
}
